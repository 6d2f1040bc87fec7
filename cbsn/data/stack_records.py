"""Patches of stacks: where they are from, which are held out, and neighbours in time.

A training may read some of the records only, in an order of its own, so what it reads is a view.
"""

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

import numpy as np

from cbsn.data.manifest import STACK, Manifest, Source
from cbsn.data.pairs import PairedRecords
from cbsn.data.records import Patches, PatchRecords, channel_of, size_text
from cbsn.errors import ConfigError
from cbsn.images.stacks.scaling import Scaling

NEXT = "next"  # as second shots: the neighbours in time
_FEWEST = 5  # planes, of which one is held out
_SHOWN = 8  # stacks that are described one by one


def is_of_stacks(patches: Patches) -> bool:
    """Returns whether patches are those of stacks."""
    manifest = getattr(patches, "manifest", None)
    return manifest is not None and manifest.kind == STACK


def describe_stacks(manifest: Manifest) -> list[str]:
    """Returns lines that say which stacks there are, and how they are scaled."""
    texts = [f"{_name(each)}: {each.stack}" for each in manifest.sources]
    if len(texts) > _SHOWN + 1:
        texts[_SHOWN:] = [f"and {len(texts) - _SHOWN} more"]
    scaling = Scaling.from_dict(manifest.scaling)
    scales = []
    for number, scale in enumerate(scaling.channels):
        if scaling.method == "deviation":
            text = f"by mean {scale.mean:.5g} and deviation {scale.deviation:.5g}"
        else:
            text = f"from {scale.low:.5g} to {scale.high:.5g}"
        scales.append(f"in channel {number} {text}" if len(scaling.channels) > 1 else text)
    how = f"scaled {', '.join(scales)}"
    if len(texts) == 1:
        return [f"{texts[0]}; {how}"]
    return [*texts, f"All are {how}"]


def _name(source: Source) -> str:
    return f"{source.path}, image {source.image}" if source.image else source.path


class Subset:
    """Some patches of others, as `Patches`.

    Args:
        patches: the others.
        indices: which of them, in increasing order.
    """

    def __init__(self, patches: Patches, indices: np.ndarray):
        self._patches = patches
        self._indices = indices
        self.manifest = getattr(patches, "manifest", None)
        self.shots, self.channels = patches.shots, patches.channels
        self.patch_size, self.dtype = patches.patch_size, patches.dtype
        self.patch_depth = patches.patch_depth
        ends = np.searchsorted(indices, np.cumsum(patches.counts))
        self.counts: Sequence[int] = [int(count) for count in np.diff(ends, prepend=0)]

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int) -> np.ndarray:
        """Returns patch `index`. Raises DataError if the record is damaged."""
        return self._patches[int(self._indices[index])]

    def describe(self, index: int) -> str:
        """Says where a patch lies and which picture it is from."""
        return self._patches.describe(int(self._indices[index]))


class NextFrames:
    """Each patch with the one at the same place a frame later, as `Patches` with two shots.

    Each pair comes twice, once in each order.

    Args:
        records: patches of stacks, each of a plane.

    Attributes:
        first_shots: the records.
        first, second: int [n], the indices of the records of each pair.
        channel: int [n], the channel of each pair.

    Raises:
        ConfigError: if no stack has two frames, or the patches are volumes.
    """

    shots, patch_depth = 2, 1

    def __init__(self, records: PatchRecords):
        if records.patch_depth > 1:
            raise ConfigError(
                f"--second_shots {NEXT} pairs planes: use cbsn prepare without --patch_depth. "
                f"Received: patches of {size_text(records.patch_size, records.patch_depth)}"
            )
        self.first_shots = records
        self.manifest = records.manifest
        self.channels, self.patch_size, self.dtype = (
            records.channels,
            records.patch_size,
            records.dtype,
        )
        places = _places(records)
        here = {
            key: index
            for index, key in enumerate(zip(*(each.tolist() for each in places), strict=True))
        }
        steps = [_frame_step(each) for each in _sources(records)]
        pairs = []
        for (source, plane, corner), index in here.items():
            step, frames = steps[source]
            if plane // step % frames + 1 < frames:
                other = here[source, plane + step, corner]
                pairs += [(index, other), (other, index)]
        if not pairs:
            found = "; ".join(describe_stacks(records.manifest)) if records.manifest else "pictures"
            raise ConfigError(
                f"--second_shots {NEXT} takes the next frame as the second shot, so it needs "
                f"stacks with the axis T and two or more frames. Received: {found}"
            )
        pairs.sort()
        self.first, self.second = np.array(pairs).T
        patches = records.patches()
        self.channel = np.array([channel_of(*patches[i]) for i in self.first])
        ends = np.searchsorted(self.first, np.cumsum(records.counts))
        self.counts: Sequence[int] = [int(count) for count in np.diff(ends, prepend=0)]

    def __len__(self) -> int:
        return len(self.first)

    def __getitem__(self, index: int) -> np.ndarray:
        """Returns pair `index`: [P, P, 2·C]. Raises DataError if a record is damaged."""
        both = (self.first_shots[int(each[index])] for each in (self.first, self.second))
        return np.concatenate([*both], axis=-1)

    def describe(self, index: int) -> str:
        """Says where a pair of patches lies and which planes it is from."""
        both = (self.first_shots.describe(int(each[index])) for each in (self.first, self.second))
        return " and ".join(both)


Shots = PatchRecords | PairedRecords | NextFrames


class HeldOut(NamedTuple):
    """Which planes, or patches of volumes, a training omits, to validate on.

    Args:
        records: bool [n], whether each record is one of theirs.
        overlapping: bool [n], whether each record is another one that has pixels in common with
            them, and so is not for training.
        number: that of planes held out, or of patches of volumes.
        of: the number of all of them.
    """

    records: np.ndarray
    overlapping: np.ndarray
    number: int
    of: int


def hold_out(records: PatchRecords, share: float) -> HeldOut:
    """Chooses what to hold out, evenly spread over all stacks, with all channels of each.

    These are whole planes, or single patches of volumes, which may have few planes. Of 5 or more it
    is at least one, of fewer none. None is held out, either, if the patches of volumes overlap so
    much that fewer than half of them would be left.

    Args:
        records: patches of stacks.
        share: float in [0, 0.5], of the planes or patches; 0.1 for every tenth, from the fifth on.
    """
    sources = _sources(records)
    units = [_units(each) for each in sources]
    total = sum(int(each.max()) + 1 for each in units)
    exact = Fraction(repr(share))  # not 0.1 in binary, whose multiples round differently
    steps = [math.floor(exact * number + Fraction(1, 2)) for number in range(total + 1)]
    held = np.diff(steps) > 0
    if share and not held.any():
        held[total // 2] = True
    if total < _FEWEST:
        held[:] = False
    chosen, near, count, of, first = [], [], 0, 0, 0
    for source, each in zip(sources, units, strict=True):
        chosen.append(held[first + each])
        near.append(_overlapping(source, chosen[-1], records) & ~chosen[-1])
        at_once = 1 if source.corners else source.patches_at_once
        count += int(chosen[-1].sum()) // at_once
        of += source.patches // at_once
        first += int(each.max()) + 1
    starts = np.cumsum([0, *map(len, chosen)])
    numbers = {id(source): start for source, start in zip(sources, starts, strict=False)}
    order = np.array([numbers[id(source)] + number for source, number in records.patches()])
    of_records, overlapping = (np.concatenate(each)[order] for each in (chosen, near))
    if overlapping.any() and 2 * (of_records | overlapping).sum() > len(records):
        none = np.zeros_like(of_records)
        return HeldOut(none, none, 0, of)
    return HeldOut(of_records, overlapping, count, of)


def _units(source: Source) -> np.ndarray:
    """Returns for each patch the number of what is held out together, without the channels."""
    frames, at_once = _frames(source), source.patches_at_once
    if not source.corners:
        return np.repeat(frames, at_once)
    return (frames[:, None] * at_once + np.arange(at_once)).ravel()


def _overlapping(source: Source, held: np.ndarray, records: PatchRecords) -> np.ndarray:
    """Returns for each patch of a volume whether it has voxels in common with one held out."""
    if not source.corners:
        return held
    places = held.reshape(-1, *map(len, source.corners))
    sides = records.patch_depth, records.patch_size, records.patch_size
    for axis, (corners, side) in enumerate(zip(source.corners, sides, strict=True), 1):
        distance = np.abs(np.subtract.outer(corners, corners))
        found = np.tensordot((distance < side).astype(int), places.astype(int), (1, axis))
        places = np.moveaxis(found, 0, axis) > 0
    return places.ravel()


class _Places(NamedTuple):
    """Where records are from, int [n] each: the stack, the plane in it, and the place in that."""

    source: np.ndarray
    plane: np.ndarray
    corner: np.ndarray


def split(records: Shots, share: float) -> tuple[Patches, Patches | None, HeldOut]:
    """Divides patches of stacks into those to train on, and those that are held out.

    A pair of frames is trained on if neither is held out, a volume if no voxel of it is.

    Raises:
        ConfigError: if none is left to train on.
    """
    planes = hold_out(records if isinstance(records, PatchRecords) else records.first_shots, share)
    held = planes.records
    if isinstance(records, NextFrames):
        held = held[records.first] | held[records.second]
    if held.all():
        raise ConfigError(
            f"No patches are left to train on: use a smaller --hold_out. "
            f"Received: --hold_out {share:g}, for {planes.of} planes"
        )
    if not held.any():
        return records, None, planes
    # Only volumes overlap, and those have no pairs of frames.
    others = ~(held | planes.overlapping) if planes.overlapping.any() else ~held
    training, held_out = (Subset(records, np.flatnonzero(each)) for each in (others, held))
    return training, held_out, planes


def _places(records: PatchRecords) -> _Places:
    numbers = {id(source): number for number, source in enumerate(_sources(records))}
    patches = records.patches()
    source = np.array([numbers[id(each)] for each, _ in patches])
    number = np.array([number for _, number in patches])
    in_plane = np.array([each.patches_at_once for each in _sources(records)])[source]
    return _Places(source, number // in_plane, number % in_plane)


def _sources(records: PatchRecords) -> tuple[Source, ...]:
    assert records.manifest is not None
    return records.manifest.sources


def _frame_step(source: Source) -> tuple[int, int]:
    """Returns how many planes further the next frame is, and the number of frames."""
    if "T" not in source.axes:
        return 1, 1
    axis = source.axes.index("T")
    return math.prod(source.shape[axis + 1 :]), source.shape[axis]


def _frames(source: Source) -> np.ndarray:
    """Returns for each plane which one it is when the channels are not counted.

    Of volumes, the planes that patches begin at count.
    """
    planes = np.indices(source.steps).reshape(len(source.steps), math.prod(source.steps))
    kept = [axis for axis, name in enumerate(source.axes) if name != "C"]
    if not kept:
        return np.zeros(source.planes, int)
    sizes = [source.steps[axis] for axis in kept]
    return np.ravel_multi_index([planes[axis] for axis in kept], sizes)
