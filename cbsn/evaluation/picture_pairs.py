"""Pairs of noisy and clean pictures, to measure on."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from cbsn.data.image_io import find_images, read_picture, to_rgb
from cbsn.data.noise import Noise
from cbsn.errors import DataError
from cbsn.evaluation.metrics import psnr
from cbsn.inference.denoiser import Denoiser


class PicturePairs:
    """Noisy and clean pictures with equal names (but for their suffix) in two folders.

    Args:
        noisy: folder or glob of the noisy pictures; or the noise that the clean ones are given,
            which is a function of each one's name and of `seed`, and is not clipped.
        clean: folder or glob of the clean ones; there may be more of them.
        limit: int, take that many pairs, spread evenly over the list; 0 for all.
        seed: int ≥ 0, of the noise.

    Attributes:
        names: of the pairs, in their order.
        any_range: whether noisy values may lie beyond [0, 1], as noise that is not clipped has it.

    Raises:
        DataError: if a noisy picture has no clean one, or several have one name.
    """

    def __init__(self, noisy: str | Path | Noise, clean: str | Path, limit: int = 0, seed: int = 0):
        self._noise = noisy if isinstance(noisy, Noise) else None
        self._seed = seed
        clean_by_name = _by_name(clean)
        noisy_by_name = clean_by_name if self._noise else _by_name(noisy)
        missing = sorted(noisy_by_name.keys() - clean_by_name.keys())
        if missing:
            raise DataError(
                f"Every noisy picture needs a clean one of its name. {clean} has none for "
                f"{len(missing)} of {len(noisy_by_name)}, such as {noisy_by_name[missing[0]]}."
            )
        names = sorted(noisy_by_name)
        if 0 < limit < len(names):
            names = [names[i * len(names) // limit] for i in range(limit)]
        self.names = names
        self.any_range = self._noise is not None
        self._paths = [(noisy_by_name[name], clean_by_name[name]) for name in names]

    def __len__(self) -> int:
        return len(self._paths)

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yields (noisy, clean), two arrays of one dtype: [H, W, 3], or [H, W, 1] if both are gray.

        Raises:
            ImageError: if a file is not readable.
            DataError: if a pair differs in size or depth.
        """
        for noisy_path, clean_path in self._paths:
            if self._noise:
                color = read_picture(clean_path).color
                noisy = self._noise.fixed(color, self._seed, clean_path.stem)
                yield noisy, self._noise.clean(color)
                continue
            pictures = read_picture(noisy_path), read_picture(clean_path)
            gray = all(picture.color.shape[-1] == 1 for picture in pictures)
            noisy, clean = (each.color if gray else to_rgb(each) for each in pictures)
            if noisy.shape != clean.shape or noisy.dtype != clean.dtype:
                raise DataError(
                    f"{noisy_path} ({noisy.shape}, {noisy.dtype}) and {clean_path} "
                    f"({clean.shape}, {clean.dtype}) are not a pair: size or depth differ."
                )
            yield noisy, clean

    def measure(
        self, denoiser: Denoiser, keep: int = 4, stop: Callable[[], bool] = lambda: False
    ) -> tuple[float, list[tuple[np.ndarray, np.ndarray, np.ndarray]]] | None:
        """Denoises every noisy picture.

        Args:
            denoiser: from image to image.
            keep: how many pictures to return.
            stop: asked before each picture whether to give up.

        Returns:
            The mean PSNR in dB, and the first `keep` triples (noisy, denoised, clean); None if
            it gave up.
        """
        values, triples = [], []
        for noisy, clean in self:
            if stop():
                return None
            denoised = denoiser(noisy, any_range=self.any_range)
            values.append(psnr(clean, denoised))
            if len(triples) < keep:
                triples.append((noisy, denoised, clean))
        return float(np.mean(values)), triples


def _by_name(pattern: str | Path) -> dict[str, Path]:
    paths: dict[str, Path] = {}
    for path in find_images(pattern):
        if paths.setdefault(path.stem, path) != path:
            raise DataError(f"{path} and {paths[path.stem]} have one name; keep one of them.")
    return paths
