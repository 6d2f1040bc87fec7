"""Tests of `cbsn.images.stacks.writing`."""

import contextlib
import dataclasses
import errno
import json

import numpy as np
import pytest
import tifffile

from cbsn.errors import ImageError
from cbsn.images.stacks import writing
from cbsn.images.stacks.ome_zarr import OmeZarrFacts
from cbsn.images.stacks.ome_zarr_writer import create_ome_zarr
from cbsn.images.stacks.opening import open_stacks
from cbsn.images.stacks.stack import Channel, Layout
from cbsn.images.stacks.tiff_stack_writer import TiffStackFile, create_tiff_stack
from cbsn.images.stacks.writing import partial_stack_file

LAYOUT = Layout("TYX", (4, 6, 8), np.dtype("uint16"), "TIFF")
PLANES = np.arange(4 * 6 * 8, dtype=np.uint16).reshape(4, 6, 8)
WHOLE = slice(0, 6), slice(0, 8)

KINDS = {"a.tif": create_tiff_stack, "a.ome.zarr": create_ome_zarr}


class KilledError(Exception):
    pass


@pytest.fixture(params=KINDS)
def target(request, tmp_path):
    if request.param.endswith("zarr"):
        pytest.importorskip("zarr")
    return tmp_path / request.param


def write(target, numbers, settings=None, die_after=None):
    """Writes planes, and dies after some; returns how many an earlier run had done."""
    create = KINDS[target.name]
    with partial_stack_file(target, create, [LAYOUT], settings or {"a": 1}) as file:
        done = file.done
        for number in numbers[done:]:
            if number == die_after:
                raise KilledError
            file.write(0, (number,), *WHOLE, PLANES[number])
            file.count(number + 1)
    return done


def read(target):
    with open_stacks(target) as (stack,):
        return np.stack([stack.read(index) for index in stack.layout.indices()])


def test_the_file_appears_when_it_is_complete(target):
    with partial_stack_file(target, KINDS[target.name], [LAYOUT], {}) as file:
        for number in range(4):
            assert not target.exists()
            file.write(0, (number,), *WHOLE, PLANES[number])
    np.testing.assert_array_equal(read(target), PLANES)
    assert [*target.parent.iterdir()] == [target]


def test_an_earlier_result_stays_until_then(target):
    write(target, range(4))
    with pytest.raises(KilledError):
        write(target, range(4), {"b": 2}, die_after=2)
    np.testing.assert_array_equal(read(target), PLANES)
    write(target, range(4), {"b": 2})
    np.testing.assert_array_equal(read(target), PLANES)
    assert [*target.parent.iterdir()] == [target]


def test_it_goes_on_with_the_same_settings_only(target):
    with pytest.raises(KilledError):
        write(target, range(4), die_after=3)
    assert not target.exists()
    with pytest.raises(KilledError):
        assert write(target, range(4), {"a": 2}, die_after=0) == 0
    with pytest.raises(KilledError):
        write(target, range(4), die_after=2)
    assert write(target, range(4)) == 2
    np.testing.assert_array_equal(read(target), PLANES)


def test_nothing_stays_if_nothing_is_done(target):
    with pytest.raises(KilledError):
        write(target, range(4), die_after=0)
    assert not [*target.parent.iterdir()]


def test_what_an_earlier_run_left_may_be_damaged(target):
    with pytest.raises(KilledError):
        write(target, range(4), die_after=3)
    (partial,) = (each for each in target.parent.iterdir() if each.suffix == ".partial")
    for file in [partial] if partial.is_file() else partial.rglob("*"):
        if file.is_file():
            file.write_bytes(b"damaged")
    assert write(target, range(4)) == 0
    np.testing.assert_array_equal(read(target), PLANES)


def test_the_state_is_saved_now_and_then(target, monkeypatch):
    monkeypatch.setattr(writing, "_SAVED_EVERY", 0)
    file = writing.PartialStackFile(target, KINDS[target.name], [LAYOUT], {"a": 1})
    for number in range(2):
        file.write(0, (number,), *WHOLE, PLANES[number])
        file.count(number + 1)
    # As if the process were killed: neither stopped nor finished.
    del file
    assert write(target, range(4)) == 2
    np.testing.assert_array_equal(read(target), PLANES)


def test_a_longest_name_is_possible(tmp_path):
    target = tmp_path / ("x" * 251 + ".tif")
    with partial_stack_file(target, create_tiff_stack, [LAYOUT], {}) as file:
        for number in range(4):
            file.write(0, (number,), *WHOLE, PLANES[number])
    np.testing.assert_array_equal(tifffile.imread(target), PLANES)


def test_two_processes_cannot_write_it_at_once(target):
    with partial_stack_file(target, KINDS[target.name], [LAYOUT], {}) as file:
        for number in range(4):
            file.write(0, (number,), *WHOLE, PLANES[number])
        with pytest.raises(ImageError, match="another process"):
            write(target, range(4))
    np.testing.assert_array_equal(read(target), PLANES)


def test_nothing_stays_of_a_file_that_cannot_be_made(tmp_path):
    layout = Layout("YX", (4, 5), np.dtype(np.float16), "CZI")
    with (
        pytest.raises(ImageError, match="float16"),
        partial_stack_file(tmp_path / "a.ome.tif", create_tiff_stack, [layout], {}),
    ):
        pass
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("name", KINDS)
def test_a_folder_of_something_else_is_not_replaced(tmp_path, name):
    if name.endswith("zarr"):
        pytest.importorskip("zarr")
    (tmp_path / name).mkdir()
    (tmp_path / name / "thesis.txt").write_text("precious")
    with pytest.raises(ImageError, match=rf"{name}: .* is there\. Move it away"):
        write(tmp_path / name, range(4))
    assert [path.name for path in tmp_path.rglob("*")] == [name, "thesis.txt"]


def _by_another_program(path):
    """A Zarr image whose arrays have other names."""
    zarr = pytest.importorskip("zarr")
    group = zarr.open_group(str(path), mode="w")
    group.create_array("mydata", shape=(5,), dtype="u1")[:] = 1


def _with_labels(path):
    write(path, range(4))
    (path / "labels" / "cells").mkdir(parents=True)


def _with_a_group(path):
    write(path, range(4))
    (path / "0" / "mine").mkdir()


def _with_an_attribute(path):
    write(path, range(4))
    node = json.loads((path / "zarr.json").read_text())
    node["attributes"]["reviewed"] = True
    (path / "zarr.json").write_text(json.dumps(node))


def _with_an_image(path):
    """A collection, one image of which has been replaced."""
    zarr = pytest.importorskip("zarr")
    with partial_stack_file(path, create_ome_zarr, [LAYOUT, LAYOUT], {}):
        pass
    zarr.open_group(str(path / "1"), mode="w")


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (_by_another_program, "something that is no result of cbsn, or has been changed since,"),
        (_with_labels, "an earlier result with something else in it, labels,"),
        (_with_a_group, "an earlier result with something else in it, 0/mine,"),
        (_with_an_attribute, "something that is no result of cbsn, or has been changed since,"),
        (_with_an_image, "an earlier result with something else in it, 1,"),
    ],
)
def test_a_zarr_folder_is_replaced_only_if_cbsn_has_written_all_of_it(tmp_path, make, named):
    pytest.importorskip("zarr")
    target = tmp_path / "a.ome.zarr"
    make(target)
    before = {path: path.is_file() and path.read_bytes() for path in tmp_path.rglob("*")}
    with pytest.raises(ImageError, match=rf"a\.ome\.zarr: {named} is there\. Move it away"):
        write(target, range(4), {"another": "run"})
    assert before == {path: path.is_file() and path.read_bytes() for path in tmp_path.rglob("*")}


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("count", [1, 2])
def test_a_whole_result_in_zarr_is_replaced(tmp_path, zarr_format, count):
    """Also one that was resumed, and one with attributes of the source and of the viewer."""
    pytest.importorskip("zarr")
    attributes = {"mine": {"a": 0.1}}
    facts = OmeZarrFacts(attributes, zarr_format, {}, {})
    layout = dataclasses.replace(LAYOUT, channels=(Channel("GFP"),), metadata=facts)
    target, layouts = tmp_path / "a.ome.zarr", [layout] * count
    for strength in range(2):
        settings = {"strength": strength}
        for end in 2, 4:
            with (
                contextlib.suppress(KilledError),
                partial_stack_file(target, create_ome_zarr, layouts, settings) as file,
            ):
                for number in range(file.done, end):
                    file.write(count - 1, (number,), *WHOLE, PLANES[number] + strength)
                    file.count(number + 1)
                if end == 2:
                    raise KilledError
        (target / ".DS_Store").touch()  # as macOS does in any folder that it shows
        with open_stacks(target) as stacks:
            assert stacks[-1].read((3,))[0, 0] == PLANES[3, 0, 0] + strength


def test_a_folder_that_comes_later_is_not_replaced_and_nothing_is_lost(tmp_path):
    target = tmp_path / "a.tif"
    file = writing.PartialStackFile(target, create_tiff_stack, [LAYOUT], {"a": 1})
    for number in range(4):
        file.write(0, (number,), *WHOLE, PLANES[number])
        file.count(number + 1)
    file.save()
    target.mkdir()
    with pytest.raises(ImageError, match="a folder is there"):
        file.finish()
    target.rmdir()
    assert write(target, range(4)) == 4
    np.testing.assert_array_equal(read(target), PLANES)


def test_errors_of_the_system_name_the_file_that_is_written(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(TiffStackFile, "write", fail)
    with pytest.raises(ImageError, match=r"a\.tif: cannot be written \(No space left on device\)"):
        write(tmp_path / "a.tif", range(4))
