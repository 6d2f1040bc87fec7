"""Reading stacks from TIFF files: multi-page, ImageJ's hyperstacks, OME-TIFF."""

import contextlib
import dataclasses
import math
import threading
from collections.abc import Callable, Iterator, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from cbsn.colors import luma
from cbsn.errors import ImageError
from cbsn.images.exif import EXIF, GPS
from cbsn.images.stacks.ome_sets import open_tiff
from cbsn.images.stacks.ome_xml import Facts, read_facts
from cbsn.images.stacks.stack import AXES, Channel, Layout, Spacing, Stack
from cbsn.images.tiff import refuse_raw, whole_pages
from cbsn.images.tiff_metadata import tags_of

_WHOLE = 2**26  # bytes of a page; larger ones are decoded in parts, if they are stored in parts
_BUFFER_BYTES = 2**24
_PICTURES = ("uint8", "uint16", "float32", "bool")  # dtypes of what `read_picture` reads
_CUT_OFF = "ends before its pixels do: the file is cut off."
_LACKS = "lacks some of its strips or tiles: it is damaged or incomplete."


@dataclasses.dataclass(frozen=True)
class TiffFacts:
    """What else a TIFF file says about a stack, for the writer.

    Args:
        imagej: ImageJ's metadata.
        ome: the OME-XML of the file.
        image: the number of the stack in the OME-XML.
        own_axes: by axis, what the file itself calls it.
        resolution: pixels per unit, horizontal and vertical, and the unit's code.
        photometric: how values are shown, such as `MINISBLACK` or `RGB`.
        has_axes: whether the file names its axes.
        has_shape: whether the file states its shape, in tifffile's own way.
        pages: of files that are neither, the tags of each page; of the first one only, if pages
            and planes are not the same.
        profile: the colour profile.
        colors: the colour that each value has in viewers, uint16 [3, 2^bits].
        has_exif: whether the file has EXIF data, which its results lack.
    """

    imagej: dict[str, Any] | None = None
    ome: str | None = None
    image: int = 0
    own_axes: Mapping[str, str] = dataclasses.field(default_factory=dict)
    resolution: tuple[Fraction, Fraction, int] | None = None
    photometric: str = "MINISBLACK"
    has_axes: bool = False
    has_shape: bool = False
    pages: tuple[tuple[Any, ...], ...] = ()
    profile: bytes | None = None
    colors: np.ndarray | None = None
    has_exif: bool = False


def is_tiff_stack(path: Path) -> bool:
    """Returns whether a TIFF file is more than a picture.

    That is a file of several planes or channels, any of ImageJ or OME, and one with a dtype that
    pictures do not have. Three or four planes without a name, which the file says are colours, are
    a picture. False for a file that cannot be read.
    """
    with contextlib.suppress(Exception), tifffile.TiffFile(path) as file:
        if file.is_ome or file.is_imagej:
            return True
        every: Any = file.pages
        pages = (page for page in every if not page.is_reduced)
        first = next(pages).aspage()
        several = next(pages, None) is not None or file.series[0].size > first.size
        several = several or _names_planes(file)
        kind = first.photometric.name
        if not several and kind in ("MINISBLACK", "MINISWHITE"):
            extra = [sample.name for sample in first.extrasamples]
            several = first.samplesperpixel > 1 and extra not in (["ASSOCALPHA"], ["UNASSALPHA"])
        is_photo = kind not in ("MINISBLACK", "MINISWHITE", "RGB")
        return several or not (is_photo or str(first.dtype) in _PICTURES)
    return False


def _names_planes(file: tifffile.TiffFile) -> bool:
    """Returns whether a file of tifffile names an axis of its planes as time, depth or channel.

    Of three or four planes, tifffile also says that they are colours.
    """
    series = file.series[0]
    is_named = series.kind == "shaped" and "axes" in (file.shaped_metadata or ({},))[0]
    # A last axis C is that of a pixel's colours, by another name.
    return is_named and "S" not in series.axes and bool({*"TZC"} & {*series.axes[:-1]})


def open_tiff_stacks(path: Path, axes: str | None) -> tuple[list[Stack], Callable[[], None]]:
    """Opens a TIFF file's stacks, one for each of its images; also returns what closes the file.

    Args:
        path: the file.
        axes: letters for the axes of all its stacks. Default: what the file says; pages without a
            meaning are frames in time.

    Raises:
        ImageError: if the file is damaged, its pages differ in size, or the axes are unknown.
    """
    file = open_tiff(path, axes)
    try:
        refuse_raw(file)
        pages = [*whole_pages(file)]  # raises an error for a list of pages that is damaged
        series = [each for each in file.series if not each.keyframe.is_reduced]
        if not file.is_ome:
            # tifffile takes any page half as large for a smaller copy; real ones are marked so, or
            # are of a format that it knows.
            whole = {page.offset for page in pages}
            guessed = [each for each in series if each.kind == "generic"]
            halves = [half for each in guessed for half in each.levels[1:]]
            series += [half for half in halves if half.keyframe.offset in whole]
        if not series:
            raise ImageError("has no readable page: the file is damaged or cut off.")
        if len(series) > 1 and not file.is_ome:
            kinds = [f"{' x '.join(map(str, each.shape))} {each.dtype}" for each in series]
            raise ImageError(
                f"holds pages of different sizes or types ({', '.join(kinds[:3])}"
                f"{', …' * (len(kinds) > 3)}): save those of one kind as a file."
            )
        # What OME-XML says is then not what tifffile has found.
        if file.is_ome and axes is None and series[0].kind in ("generic", "uniform"):
            raise ImageError(
                "has OME-XML that does not fit its pages: name the axes, such as --axes TYX."
            )
        text = file.ome_metadata if file.is_ome else None
        facts = read_facts(text) if text else []
        many = len(series) > 1
        if file.is_ome or file.is_imagej:
            pages = []
        of_each = zip(series, [*facts, *[None] * len(series)], strict=False)
        stacks = []
        for number, (each, known) in enumerate(of_each):
            with _opened(each.keyframe):
                stacks.append(_stack(file, each, axes, number, known, many, pages))
    except BaseException:
        file.close()
        raise
    return stacks, file.close


def _stack(
    file: tifffile.TiffFile,
    series: Any,
    axes: str | None,
    number: int,
    facts: Any,
    many: bool,
    pages: list[Any],
) -> Stack:
    own, shape = series.axes, series.shape
    page = series.keyframe
    if page.dtype is None or page.compression not in tifffile.TIFF.DECOMPRESSORS:
        name = getattr(page.compression, "name", page.compression)
        raise ImageError(
            f"has {page.bitspersample} bits per sample and the compression {name}, which this "
            "version of tifffile cannot decode: try pip install -U tifffile imagecodecs."
        )
    photometric = page.photometric.name
    if "S" in own and not (photometric in ("RGB", "YCBCR") and page.samplesperpixel in (3, 4)):
        if "C" in own:
            raise ImageError(f"has the axes {own}, of which S holds no colours: save it as TZCYX.")
        own = own.replace("S", "C")  # samples that are not colours are channels
    is_told = axes is not None
    if axes is None:
        axes = _known(own, shape)
    elif len(axes) != len(own):
        raise ImageError(
            f"has {len(own)} axes, of the sizes {shape}: --axes takes a letter for each. "
            f"Received: --axes {axes}"
        )
    planes = math.prod(n for axis, n in zip(axes, shape, strict=True) if axis not in "YXS")
    colors = page.colormap if photometric == "PALETTE" else None
    # Those of ImageJ and OME are for display only.
    is_plain = not (file.is_imagej or file.is_ome)
    if colors is not None and is_plain and not _is_scale(colors):
        raise ImageError(
            "holds numbers of colours (a palette), not brightness: save it as gray or RGB."
        )
    dtype = page.dtype
    source = _source(series, axes)
    kept = TiffFacts(
        imagej=file.imagej_metadata if file.is_imagej else None,
        ome=file.ome_metadata if file.is_ome else None,
        image=number,
        own_axes=dict(zip(axes, series.axes, strict=True)),
        resolution=_resolution(page),
        photometric=photometric,
        has_axes=is_told or set(series.axes) <= {*AXES},
        has_shape=file.is_shaped,
        pages=_tags(pages, planes),
        profile=page.iccprofile if isinstance(page.iccprofile, bytes) else None,
        colors=colors,
        has_exif=bool({EXIF, GPS} & {*page.tags.keys()}),
    )
    spacing: dict[str, Spacing] = {}
    channels: tuple[Channel, ...] = ()
    if isinstance(facts, Facts):
        spacing, channels = facts.spacing, facts.channels
        name = facts.name if many else ""
    else:
        name = ""
        if kept.imagej is not None:
            spacing, channels = _imagej_facts(kept)
    order = sorted(axes, key="YXS".find)  # the others first, in the file's order
    sizes = dict(zip(axes, shape, strict=True))
    layout = Layout(
        "".join(order),
        tuple(sizes[axis] for axis in order),
        dtype,
        "ImageJ" if file.is_imagej else "OME-TIFF" if file.is_ome else "TIFF",
        name=name,
        spacing={axis: each for axis, each in spacing.items() if axis in axes},
        channels=channels if len(channels) == sizes.get("C", 1) else (),
        metadata=kept,
    )
    return Stack(layout, source)


def _known(axes: str, shape: tuple[int, ...]) -> str:
    """Returns the axes of a file; one that it does not name is time."""
    unknown = [axis for axis in axes if axis not in AXES]
    if not unknown:
        return axes
    if len(unknown) == 1 and "T" not in axes:
        return axes.replace(unknown[0], "T")
    sizes = " x ".join(map(str, shape))
    raise ImageError(
        f"does not say what its axes are ({axes}, {sizes}): name them, such as --axes "
        f"{('TZC' + 'YX')[-len(axes) :]}."
    )


def _source(series: Any, axes: str) -> Any:
    """Returns a function that reads parts of planes; see `cbsn.images.stacks.stack.Read`."""
    shape, outer = series.shape, [axis for axis in axes if axis not in "YXS"]

    def part(array: np.ndarray, here: str, index: tuple[int, ...], *slices: slice) -> np.ndarray:
        """Takes a part of a plane from an array with the axes `here`."""
        places: dict[str, Any] = {**dict(zip(outer, index, strict=True)), "Y": slices[0]}
        places["X"] = slices[1]
        found = array[tuple(places.get(axis, slice(None)) for axis in here)]
        left = [axis for axis in here if axis in "YXS"]
        return found.transpose([left.index(axis) for axis in "YXS" if axis in left])

    if series.dataoffset is not None and not series.is_multifile:
        page = series.keyframe
        path, offset = Path(page.parent.filehandle.path), series.dataoffset
        dtype = series.dtype.newbyteorder(page.parent.byteorder)
        if offset + math.prod(shape) * dtype.itemsize > path.stat().st_size:
            raise ImageError(_CUT_OFF)

        def mapped(index: tuple[int, ...], rows: slice, columns: slice) -> np.ndarray:
            # Opened anew each time, so that what was read before takes no memory.
            whole = np.memmap(path, dtype, "r", offset, shape)
            return np.array(part(whole, axes, index, rows, columns))

        return mapped

    pages = series.pages
    inner, size = len(shape), 1
    while size < series.keyframe.size:
        inner -= 1
        size *= shape[inner]
    inner = min(inner, axes.index("Y"), axes.index("X"))  # also a single row or column
    if size != series.keyframe.size or math.prod(shape[:inner]) != len(pages):
        raise ImageError("lists pages that do not fit together: the file is damaged.")
    if any(page is None for page in pages):
        raise ImageError("lacks planes that its metadata name, maybe in other files.")
    turn, last = threading.Lock(), (-1, np.empty(0))

    def paged(index: tuple[int, ...], rows: slice, columns: slice) -> np.ndarray:
        nonlocal last
        places = dict(zip(outer, index, strict=True))
        # Axes within a page, such as separate samples, do not count.
        number = 0
        for axis, length in zip(axes[:inner], shape[:inner], strict=True):
            number = number * length + places.get(axis, 0)
        page = pages[number]
        with turn, _opened(page):  # the file has one position
            is_plane = set(axes[inner:]) <= {*"YXS"}  # and has no channels
            is_large = is_plane and page.nbytes > _WHOLE
            if is_large and (found := _segments(page, rows, columns)) is not None:
                return found
            if last[0] != number:
                last = number, _decoded(page).reshape(shape[inner:])
            return part(last[1], axes[inner:], index, rows, columns).copy()

    return paged


@contextlib.contextmanager
def _opened(page: Any) -> Iterator[None]:
    """Opens a page's file meanwhile, as tifffile keeps all but the first one of a set closed."""
    handle = page.parent.filehandle
    is_closed = handle.closed
    if is_closed:
        handle.open()
    try:
        yield
    finally:
        if is_closed:
            handle.close()


def _decoded(page: Any) -> np.ndarray:
    ends = map(sum, zip(page.dataoffsets, page.databytecounts, strict=True))
    if max(ends, default=0) > page.parent.filehandle.size:
        raise ImageError(_CUT_OFF)
    if not all(page.databytecounts):
        raise ImageError(_LACKS)
    try:
        return page.asarray(buffersize=_BUFFER_BYTES)
    except Exception as error:  # damaged bytes make decoders raise almost anything
        raise ImageError(f"cannot be decoded, it is damaged ({error}).") from error


def _segments(page: Any, rows: slice, columns: slice) -> np.ndarray | None:
    """Decodes only the strips or tiles of a large page that are needed; None if that is no help."""
    kind = page.keyframe
    if kind.planarconfig != 1 or kind.imagedepth > 1 or kind.compression.name == "JPEG":
        return None
    height, width = kind.chunks[:2]
    if height >= kind.imagelength and width >= kind.imagewidth:
        return None
    across = -(-kind.imagewidth // width)
    first, last = rows.start // height, -(-rows.stop // height)
    left, right = columns.start // width, -(-columns.stop // width)
    shape = ((last - first) * height, (right - left) * width, kind.samplesperpixel)
    found = np.zeros(shape, kind.dtype)
    for y in range(first, last):
        for x in range(left, right):
            piece = _segment(page, y * across + x)
            top, start = (y - first) * height, (x - left) * width
            found[top : top + piece.shape[0], start : start + piece.shape[1]] = piece
    top, start = rows.start - first * height, columns.start - left * width
    found = found[top : top + rows.stop - rows.start, start : start + columns.stop - columns.start]
    return found if "S" in kind.axes else found[..., 0]


def _segment(page: Any, number: int) -> np.ndarray:
    """Decodes a strip or tile, [h, w, S]."""
    offset, size = page.dataoffsets[number], page.databytecounts[number]
    handle = page.parent.filehandle
    if not size:
        raise ImageError(_LACKS)
    if offset + size > handle.size:
        raise ImageError(_CUT_OFF)
    handle.seek(offset)
    try:
        segment, _, _ = page.keyframe.decode(handle.read(size), number)
        return segment[0]
    except Exception as error:  # damaged bytes make decoders raise almost anything
        raise ImageError(f"cannot be decoded, it is damaged ({error}).") from error


def _resolution(page: Any) -> tuple[Fraction, Fraction, int] | None:
    with contextlib.suppress(TypeError, ValueError, ZeroDivisionError):
        x, y = (Fraction(*page.tags.valueof(code)) for code in (282, 283))
        unit = page.tags.valueof(296)
        if x > 0 and y > 0:
            return x, y, int(unit) if unit in (1, 2, 3) else 1
    return None


def _tags(pages: list[Any], planes: int) -> tuple[tuple[Any, ...], ...]:
    """Returns the tags of each page, or of the first one, if pages and planes are not the same."""
    found: list[tuple[Any, ...]] = []
    for page in pages if len(pages) == planes else pages[:1]:
        found.append(())
        # Pages like the first one may have none; and damaged ones are no reason to lose the pixels.
        with contextlib.suppress(Exception):
            found[-1] = tags_of(page)
    return tuple(found)


def _is_scale(colors: np.ndarray) -> bool:
    """Returns whether a palette, [3, N], goes from dark to bright, or back."""
    steps = np.diff(luma(colors.T.astype(np.float64))[:, 0])
    return bool((steps >= 0).all() or (steps <= 0).all())


def _imagej_facts(kept: TiffFacts) -> tuple[dict[str, Spacing], tuple[Channel, ...]]:
    """Returns the spacing and the channels that ImageJ's metadata state."""
    values = kept.imagej or {}
    unit = str(values.get("unit", ""))
    unit = "" if unit == "pixel" else unit
    spacing = {}
    if kept.resolution and unit:
        spacing = {
            "X": Spacing(float(1 / kept.resolution[0]), unit),
            "Y": Spacing(float(1 / kept.resolution[1]), unit),
        }
    for axis, name, its_unit in ("Z", "spacing", unit), ("T", "finterval", "second"):
        with contextlib.suppress(KeyError, TypeError, ValueError):
            if 0 < (size := float(values[name])) < np.inf:
                spacing[axis] = Spacing(size, its_unit)
    tables = values.get("LUTs", ())
    if np.ndim(tables) == 2:  # of a single channel
        tables = [tables]
    return spacing, tuple(Channel(color=_color(table)) for table in tables)


def _color(table: Any) -> str:
    """Returns the brightest colour of a lookup table, [3, 256]."""
    with contextlib.suppress(TypeError, ValueError, IndexError):
        red, green, blue = (int(values[-1]) for values in table)
        return f"#{red:02X}{green:02X}{blue:02X}"
    return ""
