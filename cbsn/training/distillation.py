"""What teachers make of the patches of a data set, for a student to learn from."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from keras import ops
from tqdm import tqdm

from cbsn.colors import luma, to_linear, to_srgb
from cbsn.data.pairs import PairedRecords
from cbsn.data.records import RECORD_SUFFIX, PatchRecords, RecordWriter
from cbsn.errors import DataError, ImageError, TrainingError, plain_reason
from cbsn.files import tidy, write_json
from cbsn.inference.denoiser import Denoiser
from cbsn.inference.options import DenoiseOptions
from cbsn.noise.measured_noise import CorrelatedNoise, measure_noise
from cbsn.training.dataset import some_patches
from cbsn.value_range import from_unit, to_unit

Tensor = Any

TARGETS = "targets"  # the folder in a run's folder where they are
_FACTS = "teachers.json"
_PATCHES_AT_ONCE, _BYTES_AT_ONCE = 64, 2**24  # denoised together at most, as float32

# Of the blur: its least and largest σ in pixels, the levels removed for each pixel of it, and the
# σ in which all of its kernel is, as SciPy has it.
_LEAST, _MOST, _LEVELS_PER_PIXEL, _TRUNCATE = 2.0, 8.0, 2.5, 4.0


def teach(
    records: PatchRecords,
    teachers: Sequence[str | Path],
    folder: Path,
    *,
    precision: str = "auto",
    skip_bad_records: bool = False,
    write: bool = True,
) -> PairedRecords:
    """Pairs the patches of a data set with what trained models make of them.

    Each teacher denoises each patch in its eight orientations; of all the mean is taken, as
    mistakes that the passes do not have in common cancel out, and the low frequencies are the noisy
    patch's own (`with_low_frequencies`). Record files that are in the folder already are kept, so
    that a run that was killed goes on; with other teachers or data they are made anew. Damaged
    records get black targets if training will skip them. Without `write`, another process has just
    made the targets.
    """
    paths = [folder / f"{number:05d}{RECORD_SUFFIX}" for number in range(len(records.paths))]
    if write:
        options = DenoiseOptions(self_ensemble=True, precision=precision)
        denoisers = [Denoiser.load(teacher, options) for teacher in teachers]
        try:
            _prepare_folder(folder, records, denoisers)
            _write(records, denoisers, paths, skip_bad_records)
        except OSError as error:
            raise TrainingError(
                f"The teacher's pictures cannot be written in {folder}: {plain_reason(error)}. "
                "Make room; then the same command goes on from here."
            ) from error
    targets = PatchRecords(paths, records.patch_size, records.dtype)
    return PairedRecords(records, targets, range(len(records)))


def _prepare_folder(folder: Path, records: PatchRecords, teachers: Sequence[Denoiser]) -> None:
    """Makes the folder, without targets of other teachers or data."""
    files = [(path.name, path.stat()) for path in records.paths]
    data = [[name, stat.st_size, stat.st_mtime_ns] for name, stat in files]
    facts = {"teachers": [teacher.sha256() for teacher in teachers], "data": data}
    folder.mkdir(parents=True, exist_ok=True)
    tidy(folder)
    try:
        same = json.loads((folder / _FACTS).read_text(encoding="utf-8")) == facts
    except (OSError, ValueError):
        same = False
    if not same:
        for path in folder.glob(f"*{RECORD_SUFFIX}"):
            path.unlink()
        write_json(folder / _FACTS, facts)


def _write(
    records: PatchRecords, teachers: Sequence[Denoiser], paths: list[Path], skip_bad_records: bool
) -> None:
    start, at_once = 0, patches_at_once(records.patch_size)
    with tqdm(total=len(records), unit="patch", desc="teacher") as bar:
        for path, count in zip(paths, records.counts, strict=True):
            stop = start + count
            if not path.exists():
                with RecordWriter(path) as writer:
                    for first in range(start, stop, at_once):
                        indices = range(first, min(first + at_once, stop))
                        for target in _targets(records, indices, teachers, skip_bad_records):
                            writer.write(target)
                        bar.update(len(indices))
            bar.update(stop - bar.n)
            start = stop


def _targets(
    records: PatchRecords, indices: range, teachers: Sequence[Denoiser], skip_bad_records: bool
) -> list[np.ndarray]:
    """The targets of some records, or black ones for those that are damaged, if they may be."""
    try:
        return [*make_targets(np.stack([records[index] for index in indices]), teachers)]
    except (DataError, ImageError) as error:
        if len(indices) > 1:  # one by one, to see which of them it is
            ones = (range(index, index + 1) for index in indices)
            return [_targets(records, one, teachers, skip_bad_records)[0] for one in ones]
        if not skip_bad_records:
            raise DataError(f"{records.describe(indices[0])}: {error}") from error
        return [np.zeros((records.patch_size, records.patch_size, 3), records.dtype)]


def patches_at_once(patch_size: int) -> int:
    """Returns how many patches `make_targets` is to be given at a time."""
    return max(1, min(_PATCHES_AT_ONCE, _BYTES_AT_ONCE // (patch_size**2 * 3 * 4)))


def make_targets(patches: np.ndarray, teachers: Sequence[Denoiser]) -> np.ndarray:
    """Returns what is to be learned of noisy patches, [N, H, W, 3] uint8, uint16 or float32."""
    unit = to_unit(patches)
    mean = np.mean([teacher.batch(unit, white=1.0) for teacher in teachers], axis=0)
    return from_unit(with_low_frequencies(unit, mean), patches.dtype)


def with_low_frequencies(noisy: np.ndarray, denoised: np.ndarray) -> np.ndarray:
    """Returns denoised pictures with the low frequencies of the noisy ones.

    A blind-spot network gets the colours of larger areas somewhat wrong. There the noisy picture
    is right, as the mean of the noise over many pixels is next to nothing: so a Gaussian blur of
    what was taken away is put back. Its standard deviation is 1 pixel for 2.5 levels (of 255) of
    what was taken away, between 2 and 8, so that what comes back of the noise stays small.

    This is done in linear light, the sRGB curve being undone. It is there that a camera's noise has
    a mean of 0; the curve, steep in the dark, makes strongly noisy pictures too dark on average.

    All pictures, float [N, H, W, C] in [0, 1], are computed at once, with matrices of H × H and
    W × W for each: for patches, not for photographs. The result is float32 in [0, 1].
    """
    level = (noisy - denoised).std(axis=(1, 2, 3)) * 255
    width = np.clip(level / _LEVELS_PER_PIXEL, _LEAST, _MOST).astype(np.float32)
    noisy, denoised = (ops.convert_to_tensor(each, "float32") for each in (noisy, denoised))
    _, rows, columns, _ = noisy.shape
    light = to_linear(denoised)
    removed = to_linear(noisy) - light
    removed = ops.einsum("nhi,nijc->nhjc", _blur(width, rows), removed)
    coarse = ops.einsum("nwj,nhjc->nhwc", _blur(width, columns), removed)
    return ops.convert_to_numpy(to_srgb(ops.clip(light + coarse, 0.0, 1.0)))


def _blur(width: np.ndarray, size: int) -> Tensor:
    """float32 [N, size, size]: blurs rows with each of N widths, mirrored beyond their ends."""
    most = int(_TRUNCATE * _MOST + 0.5)
    place = np.arange(size, dtype=np.float32)
    to, of = place[:, None], place
    times = -(-most // size) // 2 + 1
    starts = 2 * size * np.arange(-times, times + 1, dtype=np.float32)
    # Each pixel is there again and again: as it is, and mirrored.
    offsets = [of - to + start for start in starts] + [-1 - of - to + start for start in starts]
    width = ops.convert_to_tensor(width[:, None, None])
    reach = ops.floor(_TRUNCATE * width + 0.5)
    weights = sum(
        ops.where(np.abs(offset) <= reach, ops.exp(-0.5 * ops.square(offset / width)), 0.0)
        for offset in offsets
        if np.abs(offset).min() <= most
    )
    return weights / ops.sum(weights, axis=2, keepdims=True)


def measure_own(records: PatchRecords | PairedRecords, channels: int) -> list[CorrelatedNoise]:
    """Measures the noise of a data set, for a student of 3 channels or 1 to see it."""
    patches = some_patches(records, gray=False)
    try:
        return measure_noise(map(luma, patches) if channels == 1 else patches)
    except DataError as error:
        raise DataError(
            f"{error}. Or learn with a simulated camera's noise: --recipe distill --noise camera."
        ) from error
