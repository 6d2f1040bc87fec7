"""Pseudo-labels: what teachers make of noisy patches, for a student to learn from."""

import contextlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from keras import ops

from cbsn.colors import luma, to_linear, to_srgb
from cbsn.data.pairs import ManyPairs, PairedRecords
from cbsn.data.records import RECORD_SUFFIX, Patches, PatchRecords, RecordWriter
from cbsn.errors import DataError, ImageError, TrainingError, plain_reason
from cbsn.files import tidy, write_json
from cbsn.noise.measured_noise import CorrelatedNoise, measure_noise
from cbsn.progress import progress_bar
from cbsn.training.dataset import some_patches
from cbsn.training.options import MEAN, ONE
from cbsn.training.teachers import Teacher, load_teachers
from cbsn.value_range import from_unit, to_unit

Tensor = Any

TARGETS = "targets"  # folder of the targets in a run's folder
_FACTS = "teachers.json"
_PATCHES_AT_ONCE, _BYTES_AT_ONCE = 64, 2**24  # at most, per call of the teachers; as float32

# The blur: its smallest and largest σ in pixels, the removed levels per pixel of σ, and the radius
# of its kernel in σ (SciPy's `truncate`).
_LEAST, _MOST, _LEVELS_PER_PIXEL, _TRUNCATE = 2.0, 8.0, 2.5, 4.0


def teach(
    records: PatchRecords,
    teachers: Sequence[str | Path],
    folder: Path,
    *,
    holes: Sequence[int] = (),
    targets: str = MEAN,
    precision: str = "auto",
    skip_bad_records: bool = False,
    write: bool = True,
) -> PairedRecords | ManyPairs:
    """Pairs the patches of a data set with pseudo-labels from trained models.

    Each teacher denoises each patch in its eight orientations (self-ensemble), with each of the
    holes if there are some (see `Teacher`). The target is the mean of all pictures, as mistakes
    that they do not share cancel out; or each picture is a target of its own, so that a student
    learns from one of them at a time (Chen et al., AT-BSN, arXiv 2303.16783). It gets the low
    frequencies of the noisy patch (`with_low_frequencies`).

    Record files already in the folder are kept, so that a killed run can go on; with other teachers
    or data they are made anew. Damaged records get black targets if training will skip them. Pass
    `write=False` if another process has just made the targets.
    """
    count = len(teachers) * max(1, len(holes)) if targets == ONE else 1
    paths = [
        [_path(folder, number, each if count > 1 else None) for each in range(count)]
        for number in range(len(records.paths))
    ]
    if write:
        loaded = load_teachers(teachers, holes, precision)
        try:
            _prepare_folder(folder, records, loaded, targets)
            _write(records, loaded, targets, paths, skip_bad_records)
        except OSError as error:
            raise TrainingError(
                f"The teacher's results cannot be written to {folder}: {plain_reason(error)}. "
                "Free some space, then run the same command again to continue."
            ) from error
    made = [
        PatchRecords([*each], records.patch_size, records.dtype)
        for each in zip(*paths, strict=True)
    ]
    pairs = [PairedRecords(records, each, range(len(records))) for each in made]
    return ManyPairs(pairs) if count > 1 else pairs[0]


def _path(folder: Path, number: int, target: int | None) -> Path:
    """Returns the file of one target, or of the only one, for the patches of a record file."""
    suffix = "" if target is None else f"-{target}"
    return folder / f"{number:05d}{suffix}{RECORD_SUFFIX}"


def _prepare_folder(
    folder: Path, records: PatchRecords, teachers: Sequence[Teacher], targets: str
) -> None:
    """Creates the folder, and removes targets made by other teachers or from other data."""
    files = [(path.name, path.stat()) for path in records.paths]
    data = [[name, stat.st_size, stat.st_mtime_ns] for name, stat in files]
    facts: dict[str, Any] = {"teachers": [each.model.sha256() for each in teachers], "data": data}
    # As in the files of earlier versions where nothing else was asked for.
    if any(each.holes for each in teachers):
        facts["holes"] = [[*each.holes] for each in teachers]
    if targets != MEAN:
        facts["targets"] = targets
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
    records: PatchRecords,
    teachers: Sequence[Teacher],
    targets: str,
    paths: Sequence[Sequence[Path]],
    skip_bad_records: bool,
) -> None:
    start, at_once = 0, patches_at_once(records.patch_size)
    with progress_bar(total=len(records), unit="patch", desc="teacher") as bar:
        for files, count in zip(paths, records.counts, strict=True):
            stop = start + count
            if not all(path.exists() for path in files):
                with contextlib.ExitStack() as stack:
                    writers = [stack.enter_context(RecordWriter(path)) for path in files]
                    for first in range(start, stop, at_once):
                        indices = range(first, min(first + at_once, stop))
                        made = _targets(records, indices, teachers, targets, skip_bad_records)
                        for writer, patches in zip(writers, made, strict=True):
                            for patch in patches:
                                writer.write(patch)
                        bar.update(len(indices))
            bar.update(stop - bar.n)
            start = stop


def _targets(
    records: PatchRecords,
    indices: range,
    teachers: Sequence[Teacher],
    targets: str,
    skip_bad_records: bool,
) -> list[np.ndarray]:
    """Returns each target of some records; black ones for damaged records that may be skipped."""
    try:
        patches = np.stack([records[index] for index in indices])
        return make_targets(patches, teachers, targets)
    except (DataError, ImageError) as error:
        if len(indices) > 1:  # one by one, to find the damaged ones
            ones = (range(index, index + 1) for index in indices)
            made = (_targets(records, one, teachers, targets, skip_bad_records) for one in ones)
            return [np.concatenate(each) for each in zip(*made, strict=True)]
        if not skip_bad_records:
            raise DataError(f"{records.describe(indices[0])}: {error}") from error
        count = sum(max(1, len(each.holes)) for each in teachers) if targets == ONE else 1
        return [np.zeros((1, records.patch_size, records.patch_size, 3), records.dtype)] * count


def patches_at_once(patch_size: int) -> int:
    """Returns how many patches to pass to `make_targets` at a time."""
    return max(1, min(_PATCHES_AT_ONCE, _BYTES_AT_ONCE // (patch_size**2 * 3 * 4)))


def make_targets(
    patches: np.ndarray, teachers: Sequence[Teacher], targets: str = MEAN
) -> list[np.ndarray]:
    """Returns the targets of noisy patches: `MEAN` is one, `ONE` are as many as there are pictures.

    Patches and targets are [N, H, W, 3] in uint8, uint16 or float32.
    """
    unit = to_unit(patches)
    pictures = [picture for teacher in teachers for picture in teacher(unit)]
    if targets == MEAN:
        pictures = [np.mean(pictures, axis=0)]
    return [from_unit(with_low_frequencies(unit, each), patches.dtype) for each in pictures]


def with_low_frequencies(noisy: np.ndarray, denoised: np.ndarray) -> np.ndarray:
    """Returns denoised pictures with the low frequencies of the noisy ones.

    A blind-spot network gets the colours of larger areas slightly wrong. The noisy picture has them
    right, as the noise averages out over many pixels. So this puts back a Gaussian blur of what the
    network removed. The blur's standard deviation is 1 pixel per 2.5 levels (of 255) of the removed
    part's, limited to 2 to 8 pixels, so that little noise comes back.

    The blur is computed in linear light, with the sRGB curve undone, because a camera's noise has a
    mean of 0 there. The curve, steep in the dark, makes very noisy pictures too dark on average.

    Takes float pictures [N, H, W, C] in [0, 1] and returns float32 in [0, 1]. All pictures are
    computed at once, with an H × H and a W × W matrix each: use it for patches, not photographs.
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
    """Returns float32 [N, size, size], which blurs rows, mirrored at their ends, by N widths."""
    most = int(_TRUNCATE * _MOST + 0.5)
    place = np.arange(size, dtype=np.float32)
    to, of = place[:, None], place
    times = -(-most // size) // 2 + 1
    starts = 2 * size * np.arange(-times, times + 1, dtype=np.float32)
    # Beyond the ends each pixel repeats, alternately mirrored and as it is.
    offsets = [of - to + start for start in starts] + [-1 - of - to + start for start in starts]
    width = ops.convert_to_tensor(width[:, None, None])
    reach = ops.floor(_TRUNCATE * width + 0.5)
    weights = sum(
        ops.where(np.abs(offset) <= reach, ops.exp(-0.5 * ops.square(offset / width)), 0.0)
        for offset in offsets
        if np.abs(offset).min() <= most
    )
    return weights / ops.sum(weights, axis=2, keepdims=True)


def measure_own(records: Patches, channels: int) -> list[CorrelatedNoise]:
    """Measures the noise of a data set, for a student with 3 channels or 1."""
    patches = some_patches(records, gray=False)
    try:
        return measure_noise(map(luma, patches) if channels == 1 else patches)
    except DataError as error:
        raise DataError(
            f"{error}. Or use the noise of a simulated camera: --recipe distill --noise camera."
        ) from error
