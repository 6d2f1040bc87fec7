"""Denoising stacks by their planes, in as many processes as there are, into one file.

A result grows in a hidden folder next to its target, and has a place for each plane from the start:
a TIFF file has its final size, and each chunk of OME-Zarr belongs to one plane. So processes write
different planes at the same time, and writing one again, as a retry does, changes nothing. A mark
for each group of planes that is done lets a later run go on.
"""

import contextlib
import dataclasses
import itertools
import json
import shutil
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from cbsn.errors import ConfigError, ImageError
from cbsn.files import move, shortened, write_json
from cbsn.images.stacks import microscopes
from cbsn.images.stacks.ome_zarr import ZARR_SUFFIX, zarr_library
from cbsn.images.stacks.ome_zarr_attributes import Windows, marked
from cbsn.images.stacks.ome_zarr_writer import image_paths
from cbsn.images.stacks.opening import open_stacks, suffix_of, writer_of
from cbsn.images.stacks.scaling import Scaling
from cbsn.images.stacks.stack import Layout
from cbsn.images.stacks.tiff_stack_writer import TiffStackFile
from cbsn.images.stacks.writing import check_replaceable
from cbsn.inference.beam.locations import is_url
from cbsn.inference.denoiser import Denoiser
from cbsn.inference.stack_options import StackOptions
from cbsn.inference.stacks import StackWork, Step, source_state

_SUFFIX = ".planes"  # of the hidden folder


class StackJob(NamedTuple):
    """A stack to denoise: the paths of the noisy one and of the denoised one."""

    source: str
    target: str


class StackPlan(NamedTuple):
    """How the values of a file's stacks are scaled, and the groups of planes that are not done."""

    scalings: tuple[Scaling, ...]
    groups: tuple[int, ...]


class StackPart(NamedTuple):
    """A group of planes of a job, by its number."""

    job: StackJob
    scalings: tuple[Scaling, ...]
    group: int

    @property
    def source(self) -> str:
        """The path of the noisy stack."""
        return self.job.source


def check_mounted(locations: Sequence[str]) -> None:
    """Raises a ConfigError if a URL is that of a stack, as its name says."""
    for location in locations:
        names = [PurePosixPath(name.lower()).suffix for name in location.split("/")]
        if is_url(location) and (ZARR_SUFFIX in names or names[-1] in microscopes.SUFFIXES):
            raise ConfigError(not_mounted(location))


def not_mounted(location: str) -> str:
    """Returns the message for stacks that no path leads to."""
    return (
        "Stacks are read and written plane by plane, which needs a file system that all workers "
        f"have mounted: give paths instead of URLs. Received: {location}"
    )


def plan_stack(job: StackJob, denoiser: Denoiser, options: StackOptions) -> StackPlan:
    """Measures how a file's values are scaled, and prepares the folder in which its result grows.

    Raises:
        CbsnError, OSError: if the file cannot be read, or its result not be written.
    """
    source, place = Path(job.source), _Place(job)
    check_replaceable(place.target)
    with open_stacks(source, options.axes) as stacks:
        works = [StackWork(stack, [denoiser], options, source) for stack in stacks]
        count = len(_groups(works))
        settings = {
            "source": [str(source.absolute()), source_state(source)],
            "model": denoiser.sha256(),
            "options": [dataclasses.asdict(denoiser.options), dataclasses.asdict(options)],
            "scaling": [work.scaling.to_dict() for work in works],
            "groups": count,
        }
        place.prepare([work.layout for work in works], json.loads(json.dumps(settings)))
    scalings = tuple(work.scaling for work in works)
    return StackPlan(scalings, tuple(n for n in range(count) if not place.is_done(n)))


def denoise_part(part: StackPart, denoiser: Denoiser, options: StackOptions) -> int:
    """Denoises a group of planes, and writes them to their places.

    Returns:
        How many values that were not finite are filled.

    Raises:
        CbsnError, OSError: if they cannot be read, denoised or written.
    """
    place = _Place(part.job)
    if place.is_done(part.group):
        return 0  # it is a retry
    with _opened(part.job, part.scalings, [denoiser], options) as works:
        number, steps = _groups(works)[part.group]
        file = writer_of(place.target)(place.result, [work.layout for work in works], resume=True)
        for step in steps:
            planes = works[number].denoise(step, works[number].read(step))
            for index, plane in zip(step.indices, planes, strict=True):
                file.write(number, index, step.rows, step.columns, plane)
        if isinstance(file, TiffStackFile):
            # To flush OME-Zarr would store attributes, which `finish_stack` does for all processes.
            file.flush()
            file.close()
    place.mark_done(part.group)
    return works[number].filled


def finish_stack(job: StackJob, plan: StackPlan, options: StackOptions) -> None:
    """Gives a result its name, after all of its planes have been written.

    Raises:
        CbsnError, OSError: if that is not possible.
    """
    place = _Place(job)
    if not place.result.exists() and place.target.exists():
        return  # it is a retry
    if place.target.suffix.lower() == ZARR_SUFFIX:
        with _opened(job, plan.scalings, [], options) as works:
            _store_windows(place.result, [work.layout for work in works])
    place.finish()


@contextlib.contextmanager
def _opened(
    job: StackJob,
    scalings: Sequence[Scaling],
    denoisers: Sequence[Denoiser],
    options: StackOptions,
) -> Iterator[list[StackWork]]:
    """Opens the stacks of a job that has been planned."""
    source = Path(job.source)
    with open_stacks(source, options.axes) as stacks:
        if len(stacks) != len(scalings):
            raise ImageError(f"{source}: has changed since its scaling was measured.")
        yield [
            StackWork(stack, denoisers, options, source, scaling)
            for stack, scaling in zip(stacks, scalings, strict=True)
        ]


def _groups(works: Sequence[StackWork]) -> list[tuple[int, list[Step]]]:
    """Returns the number of a stack with steps of it, for each group of whole planes.

    Parts of one plane share chunks, so that they must not be written at the same time.
    """
    return [
        (number, [*steps])
        for number, work in enumerate(works)
        for _, steps in itertools.groupby(work.steps(), lambda step: step.indices)
    ]


class _Place:
    """The hidden folder in which a result grows, with marks for what is done.

    Attributes:
        target: the path of the result when it is complete.
        result: its path until then.
    """

    def __init__(self, job: StackJob):
        self.target = Path(job.target)
        self._folder = self.target.with_name(shortened(f".{self.target.name}{_SUFFIX}", _SUFFIX))
        self.result = self._folder / f"result{suffix_of(self.target)}"
        self._marks = self._folder / "done"
        self._settings = self._folder / "settings.json"

    def prepare(self, layouts: Sequence[Layout], settings: dict[str, Any]) -> None:
        """Creates the folder and the result in it, unless they are there, with these settings.

        What a run with other settings has left is removed.
        """
        if self._has(settings):
            return
        shutil.rmtree(self._folder, ignore_errors=True)
        # Under another name, so that of two processes that do so at once one finds it complete.
        fresh = self._folder.with_name(f".{uuid.uuid4().hex[:8]}{_SUFFIX}")
        try:
            (fresh / self._marks.name).mkdir(parents=True)
            writer_of(self.target)(fresh / self.result.name, layouts, resume=False).close()
            write_json(fresh / self._settings.name, settings)
            try:
                fresh.rename(self._folder)
            except OSError:
                if not self._has(settings):
                    raise
        finally:
            shutil.rmtree(fresh, ignore_errors=True)

    def _has(self, settings: dict[str, Any]) -> bool:
        with contextlib.suppress(OSError, ValueError):
            text = self._settings.read_text(encoding="utf-8")
            return json.loads(text) == settings and self.result.exists()
        return False

    def is_done(self, group: int) -> bool:
        """Returns whether a group of planes is written."""
        return (self._marks / str(group)).exists()

    def mark_done(self, group: int) -> None:
        """Remembers that a group of planes is written."""
        (self._marks / str(group)).touch()

    def finish(self) -> None:
        """Gives the result its name, in place of what is there, and removes the folder."""
        check_replaceable(self.target)  # something may be there by now
        if self.target.is_dir():  # which cannot be replaced in one step
            old = self._folder / "old"
            shutil.rmtree(old, ignore_errors=True)
            move(self.target, old)
        move(self.result, self.target)
        shutil.rmtree(self._folder, ignore_errors=True)


def _store_windows(folder: Path, layouts: Sequence[Layout]) -> None:
    """Stores the values that viewers should show, as the writer of OME-Zarr does by itself.

    It knows only what it has written, which is a part of the result in each process.
    """
    zarr = zarr_library()
    for path, layout in zip(image_paths(layouts), layouts, strict=True):
        group = zarr.open_group(str(folder / path), mode="r+", use_consolidated=False)
        attributes = dict(group.attrs)
        ome = attributes.get("ome", attributes)
        windows = Windows(layout, ome.get("omero", {}).get("channels", []))
        [multiscales] = ome["multiscales"]
        axes = [axis["name"].upper() for axis in multiscales["axes"]]
        last = group[multiscales["datasets"][-1]["path"]]
        for index in layout.indices():
            places = dict(zip(layout.outer, index, strict=True))
            plane = last[tuple(places.get(axis, slice(None)) for axis in axes)]
            windows.add(layout.channel(index), plane)
        if windows.store():
            levels = [each["path"] for each in multiscales["datasets"]]
            group.update_attributes(marked(attributes, levels))
