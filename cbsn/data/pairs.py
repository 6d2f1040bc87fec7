"""Pairs of two shots of each patch in records, and pairs of noisy and clean pictures."""

import collections
import contextlib
import dataclasses
import zlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np

from cbsn.data.benchmark_files import block_places, read_blocks
from cbsn.data.manifest import STACK
from cbsn.data.records import PatchRecords, channel_of, spread_patches
from cbsn.errors import DataError
from cbsn.files import expanded
from cbsn.images.finding import are_single, find_images
from cbsn.images.image_files import read_picture, to_rgb
from cbsn.images.picture import Picture
from cbsn.images.stacks.opening import suffix_of
from cbsn.images.stacks.scaling import Scale, Scaling
from cbsn.noise.synthetic import Noise
from cbsn.value_range import ValueRange

_LOOKED_AT = 64  # evenly spread pairs that are compared, to check that the second shots differ


class PairedRecords:
    """Two prepared data sets as one: `Patches` with twice as many channels.

    For each picture of the first, the second must hold one of the same name (except for the suffix)
    and size, prepared alike; it may hold more. Otherwise, or if both are the same, raises
    DataError. Two shots with different value ranges are converted to the range that holds both.
    Given `partners` (index in the second for each of the first), only the patches' size and dtype
    matter.
    """

    shots = 2

    def __init__(
        self, first: PatchRecords, second: PatchRecords, partners: Sequence[int] | None = None
    ):
        for name in ("patch_size", "patch_depth", "dtype", "channels"):
            if getattr(first, name) != getattr(second, name):
                raise DataError(
                    "Two shots need patches of the same kind: prepare both data sets with the same "
                    f"flags. Received: {name} {getattr(first, name)} and {getattr(second, name)}"
                )
        self.first_shots, self._second = first, second
        self.patch_size, self.dtype, self.counts = first.patch_size, first.dtype, first.counts
        self.channels, self.manifest = first.channels, first.manifest
        self.patch_depth = first.patch_depth
        self._partners = _find_partners(first, second) if partners is None else partners
        self._ranges: dict[int, tuple[ValueRange, ValueRange]] = {}
        self._changes: dict[int, tuple[Scale, Scale]] = {}
        if partners is None:
            self._ranges = _find_ranges(first, second, self._partners)
            self._changes = _find_scales(first, second, self._partners)
            shots = (np.split(pair, 2, axis=-1) for _, pair in spread_patches(self, _LOOKED_AT))
            # If the shots had the same noise, it would be learned as part of the picture.
            if all(np.array_equal(a, b) for a, b in shots):
                raise _same(self.describe(0))

    def __len__(self) -> int:
        return len(self.first_shots)

    def describe(self, index: int) -> str:
        """Says where a pair of patches lies and which pictures it is from."""
        partner = self._second.describe(self._partners[index])
        return f"{self.first_shots.describe(index)} and {partner}"

    def __getitem__(self, index: int) -> np.ndarray:
        """Returns pair `index`, [P, P, 2·C] or [D, P, P, 2·C]. DataError if a record is damaged."""
        shots = [self.first_shots[index], self._second[self._partners[index]]]
        if ranges := self._ranges.get(index):
            common = ValueRange.common(*ranges)
            shots = [shot.copy() for shot in shots]
            for shot, own in zip(shots, ranges, strict=True):
                own.stretch(shot, undo=True)
                common.stretch(shot)
        if index in self._changes:
            mine, theirs = self._changes[index]
            shots[1] = mine.apply(theirs.undo(shots[1]))
        return np.concatenate(shots, axis=-1)


class ManyPairs:
    """Several pairings of the same patches as one: `Patches` that hold each patch once for each."""

    shots = 2

    def __init__(self, pairs: Sequence[PairedRecords]):
        self._pairs = pairs
        first = pairs[0]
        self.patch_size, self.patch_depth = first.patch_size, first.patch_depth
        self.channels, self.dtype = first.channels, first.dtype
        self.counts: Sequence[int] = [count for each in pairs for count in each.counts]

    def __len__(self) -> int:
        return sum(map(len, self._pairs))

    def describe(self, index: int) -> str:
        """Says where a pair of patches lies and which pictures it is from."""
        pairing, place = divmod(index, len(self._pairs[0]))
        return self._pairs[pairing].describe(place)

    def __getitem__(self, index: int) -> np.ndarray:
        """Returns pair `index`, as `PairedRecords` does."""
        pairing, place = divmod(index, len(self._pairs[0]))
        return self._pairs[pairing][place]


def _find_partners(first: PatchRecords, second: PatchRecords) -> list[int]:
    keys, others = (
        [((_stem(source.path), source.image), number) for source, number in records.patches()]
        for records in (first, second)
    )
    places = {key: index for index, key in enumerate(others)}
    here, there = (collections.Counter(picture for picture, _ in each) for each in (keys, others))
    bad = [picture for picture in here if here[picture] != there[picture]]
    if bad:
        raise DataError(
            f"Each picture needs a second shot of the same name and size. {len(bad)} of "
            f"{len(here)} have none, such as {bad[0][0]}: the first shot gives {here[bad[0]]} "
            f"patch{'es' * (here[bad[0]] != 1)}, the second {there[bad[0]]}."
        )
    return [places[key] for key in keys]


def _stem(path: str) -> Path:
    """Returns a path without its suffix, such as `.png` or `.ome.tif`."""
    name = Path(path)
    return name.with_name(name.name.removesuffix(suffix_of(name)))


def _find_ranges(
    first: PatchRecords, second: PatchRecords, partners: Sequence[int]
) -> dict[int, tuple[ValueRange, ValueRange]]:
    """Returns the value ranges of both shots, for the patches where they differ."""
    theirs = second.patches()
    found, seen = {}, set()
    for index, (source, _) in enumerate(first.patches()):
        other, _ = theirs[partners[index]]
        if source.path not in seen:
            seen.add(source.path)
            with contextlib.suppress(OSError):  # the pictures may no longer exist
                if first.picture_path(source).samefile(second.picture_path(other)):
                    raise _same(source.path)
        is_known = source.height and other.height  # not in data sets from earlier versions
        here, there = (
            f"{each.width} x {each.height}" if is_known else str(each.pixels)
            for each in (source, other)
        )
        if here != there and source.pixels and other.pixels:
            raise DataError(
                f"The two shots of {source.path} differ in size: {here} and {there} pixels. Crop "
                "both to the same area."
            )
        a, b = source.value_range, other.value_range
        if a and b and a != b and source.dtype == other.dtype:
            found[index] = a, b
    return found


def _find_scales(
    first: PatchRecords, second: PatchRecords, partners: Sequence[int]
) -> dict[int, tuple[Scale, Scale]]:
    """Returns how the values of both shots were scaled, for the patches of stacks that differ."""
    mine, theirs = (
        Scaling.from_dict(each.scaling) if each is not None and each.kind == STACK else None
        for each in (first.manifest, second.manifest)
    )
    if (mine is None) != (theirs is None):
        raise DataError(
            "Both shots must be stacks, or both pictures: --second_shots has the others."
        )
    if mine is None or theirs is None or mine == theirs:
        return {}
    others = second.patches()
    return {
        index: (mine.of(channel_of(*patch)), theirs.of(channel_of(*others[partner])))
        for index, (patch, partner) in enumerate(zip(first.patches(), partners, strict=True))
    }


def _same(what: str) -> DataError:
    return DataError(
        f"The second shots are the same pictures as the first, such as {what}. They must show the "
        "same scenes with different noise: give their folder with --second_shots."
    )


Item = TypeVar("Item")


@dataclasses.dataclass(frozen=True)
class NamedPicture:
    """A picture that is read on demand."""

    place: str  # its location, for messages
    read: Callable[[], Picture]  # raises ImageError if the picture cannot be read


def find_named_pictures(pattern: str | Path, white: float | None = None) -> dict[str, NamedPicture]:
    """Finds at least one picture; returns them, sorted, by the names that pair them with others.

    This is the file's name without suffix or, for a block of SIDD's `.mat` files, `NNNN_MM`, as in
    `cbsn prepare`. For the arguments, see `find_images` and `read_picture`.

    Raises:
        DataError: there is none, or two have the same name, or the `.mat` file cannot be used.
    """
    if str(pattern).lower().endswith(".mat"):
        path = expanded(pattern)
        blocks = read_blocks(path)
        return {
            name: NamedPicture(f"{path}, block {name}", partial(Picture, blocks[place], "PNG"))
            for name, place in block_places(blocks).items()
        }
    found: dict[str, NamedPicture] = {}
    for path in find_images(pattern):
        if other := found.get(path.stem):
            raise DataError(f"{path} and {other.place} have the same name: keep only one of them.")
        found[path.stem] = NamedPicture(str(path), partial(read_picture, path, white=white))
    return dict(sorted(found.items()))


def spread(items: Sequence[Item], number: int) -> list[Item]:
    """Returns `number` items, spread evenly over a list; all of them for 0."""
    if 0 < number < len(items):
        return [items[i * len(items) // number] for i in range(number)]
    return [*items]


class PicturePairs:
    """Noisy and clean pictures with the same names (except for the suffix) in two folders.

    A single file on each side is a pair whatever the names.

    Args:
        noisy: the noisy pictures, see `find_named_pictures`; or the noise to add to the clean ones,
            which depends only on each one's name and `seed`, see `Noise.fixed`; or None.
        clean: the clean pictures, of which there may be more; or None.
        limit: number of pairs to take, spread evenly over the list; 0 for all.
        seed: seed of the noise, ≥ 0.
        white: value of white in the files. Default: determined from each pair.

    Attributes:
        names: the names of the pairs, in order.
        ranges: by name, the values of black and white in the files of the pairs read so far.
        checksum: of the names and the pixels of all pairs, once `check` has read them.

    Raises:
        DataError: a noisy picture has no clean one, or several have the same name.
    """

    def __init__(
        self,
        noisy: str | Path | Noise | None,
        clean: str | Path | None,
        limit: int = 0,
        seed: int = 0,
        *,
        white: float | None = None,
    ):
        self._noise = noisy if isinstance(noisy, Noise) else None
        self._seed = seed
        self._clean, self._noisy = (
            {} if side is None or isinstance(side, Noise) else find_named_pictures(side, white)
            for side in (clean, noisy)
        )
        counts = len(self._noisy), len(self._clean)  # a file of SIDD has many blocks
        if counts == (1, 1) and not isinstance(noisy, Noise) and are_single(noisy, clean):
            self._clean = dict(zip(self._noisy, self._clean.values(), strict=True))
        named = self._noisy or self._clean
        missing = [name for name in named if self._clean and name not in self._clean]
        if missing:
            raise DataError(
                f"Every noisy picture needs a clean one of the same name. {clean} has none for "
                f"{len(missing)} of {len(named)}, such as {named[missing[0]].place}."
            )
        self.names = spread([*named], limit)
        self.ranges: dict[str, ValueRange] = {}
        self.checksum = 0

    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> Iterator[tuple[np.ndarray | None, np.ndarray | None]]:
        """Yields (noisy, clean), two arrays of one dtype: [H, W, 3], or [H, W, 1] if both are gray.

        Both have the same value range: [0, 1] for floats if that is the clean picture's, else the
        range that holds both. A side without pictures is None. Raises ImageError or DataError if a
        file cannot be read, or a pair differs in size or depth.
        """
        for name in self.names:
            if self._noisy and self._clean:
                noisy, clean, self.ranges[name] = _read_pair(self._noisy[name], self._clean[name])
                yield noisy, clean
                continue
            picture = (self._noisy or self._clean)[name].read()
            self.ranges[name] = picture.range_in_file
            color = picture.color
            if self._noise:
                yield self._noise.fixed(color, self._seed, name), self._noise.clean(color)
            else:
                yield (None, color) if self._clean else (color, None)

    def check(self) -> None:
        """Reads all pairs, so that errors are raised before the pairs are needed."""
        self.checksum = zlib.crc32(repr(self.names).encode())
        for pair in self:
            for pixels in pair:
                if pixels is not None:
                    self.checksum = zlib.crc32(pixels.tobytes(), self.checksum)


def _read_pair(
    noisy: NamedPicture, clean: NamedPicture
) -> tuple[np.ndarray, np.ndarray, ValueRange]:
    """Reads a pair into a common value range; returns noisy, clean and the range."""
    pictures = noisy.read(), clean.read()
    shapes = [each.color.shape for each in pictures]
    dtypes = [each.pixels.dtype for each in pictures]
    if shapes[0][:2] != shapes[1][:2] or dtypes[0] != dtypes[1]:
        raise DataError(
            f"{noisy.place} ({shapes[0]}, {dtypes[0]}) and {clean.place} ({shapes[1]}, "
            f"{dtypes[1]}) are not a pair: size or bit depth differs."
        )
    ranges = [each.range_in_file for each in pictures]
    # Noisy floats may exceed [0, 1] if their noise is not clipped; the peak value stays the same.
    is_unit = dtypes[0].kind == "f" and ranges[1].is_of(dtypes[1])
    common = ranges[1] if is_unit else ValueRange.common(*ranges)
    for picture, own in zip(pictures, ranges, strict=True):
        own.change(picture.color, common)  # a view of pixels that nothing else uses
    gray = all(shape[-1] == 1 for shape in shapes)
    first, second = (each.color if gray else to_rgb(each) for each in pictures)
    return first, second, common
