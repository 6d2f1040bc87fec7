"""What makes the commands of pages take seconds; without imports, as every command imports it."""

_SHORT = ["--steps", "2", "--batch_size", "2"]
_TINY = [*_SHORT, "--channels", "4"]
_TINY_BLIND = [*_TINY, "--modules", "1", "--patch_size", "120"]
_TINY_UNET = [*_TINY, "--depth", "1", "--patch_size", "64"]
SMALLER = {
    "train --recipe cbsn": _TINY_BLIND,
    "train --recipe apbsn": _TINY_BLIND,
    "train --recipe ssbsn": [*_TINY_BLIND, "--attention", "1"],
    "train --recipe tmbsn": _TINY_UNET,
    "train --recipe cbsn-hole": _TINY_UNET,
    "train --recipe n2v-unet": _TINY_UNET,
    "train --recipe n2v2-unet": _TINY_UNET,
    "train --recipe n2v-unet-3d": _TINY_UNET,
    "train --recipe dil-unet": _TINY_UNET,
    "train --recipe pn2v-unet": _TINY_UNET,
    "train --recipe n2n-resunet": _TINY_UNET,
    "train --recipe distill": _TINY_UNET,
    "train --recipe photo": _TINY_UNET,
    "train --recipe photo-large": _TINY_UNET,
    "train --init": [*_SHORT, "--patch_size", "64"],
    "adapt": ["--minutes", "0.02"],
    "demo --stack": ["--frames", "5", "--size", "96"],
    "denoise --adapt": ["--adapt", "0.02"],
    "benchmarks": ["step", "--repeats", "1"],
}
"""Flags that make a command take seconds; of a flag that is given twice, the last one counts."""


def smaller(arguments: list[str]) -> list[str]:
    """Returns the arguments of `cbsn` with what makes them take seconds."""
    name, given = arguments[0], {word.partition("=")[0] for word in arguments}
    if name == "launch":
        start = arguments.index("--") + 1
        return [*arguments[:start], *smaller(["train", *arguments[start:]])[1:]]
    if name == "train":
        recipe = "cbsn"
        for word, value in zip(arguments, [*arguments[1:], ""], strict=True):
            if word.startswith("--recipe"):
                recipe = word.partition("=")[2] or value
        key = "train --init" if "--init" in given else f"train --recipe {recipe}"
        extra = SMALLER[key]
        if "--epochs" in given:  # instead of steps
            extra = [*extra[2:], "--epochs", "1"]
        return [*arguments, *extra]
    for key, extra in SMALLER.items():
        command, *flags = key.split()
        if command == name and given.issuperset(flags):
            return [*arguments, *extra]
    return arguments
