"""The order of the examples in the gallery."""

_NAMES = (
    "photograph",
    "noise_report",
    "adapt_to_pictures",
    "train_and_compare",
    "export_and_serve",
)


class InOrder:
    """Sorts examples from the first that a reader needs to the last."""

    def __init__(self, src_dir: str):
        self._folder = src_dir

    def __call__(self, name: str) -> int:
        """Returns the place of a script."""
        return _NAMES.index(name.removesuffix(".py"))
