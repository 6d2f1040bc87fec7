"""What is done with record files, manifests and `.mat` files that may be damaged."""

import io
import json
import random
import shutil
from pathlib import Path

import h5py
import numpy as np
import scipy.io
import scipy.sparse

from cbsn.data.benchmark_files import open_dnd, read_blocks
from cbsn.data.manifest import MANIFEST_NAME, Failure, Manifest, Shard, Source
from cbsn.data.records import PatchRecords, RecordWriter
from cbsn.errors import DataError, ImageError
from tests.fuzz.mutate import damaged, json_changed

_SIZE = 5


def _write_data_set(folder):
    pixels = np.random.default_rng(1).integers(0, 256, (6, _SIZE, _SIZE, 3), np.uint8)
    shards = []
    for number in range(2):
        with RecordWriter(folder / f"{number}.tfrecords") as writer:
            for patch in pixels[3 * number : 3 * number + 3]:
                writer.write(patch)
        shards.append(Shard(writer.path.name, 3, writer.bytes, writer.sha256, number))
    sources = [
        Source(f"{number}.png", 100, 5, 3, False, number, 0, "uint8", 0.0, 255.0, 225, 0)
        for number in range(2)
    ]
    Manifest(
        "folder",
        "/pictures",
        _SIZE,
        _SIZE,
        0,
        "uint8",
        tuple(sources),
        tuple(shards),
        (Failure("bad.png", "damaged"),),
    ).write(folder)


class Records:
    """Opening a data set with a damaged record file or manifest, and reading all of it."""

    def __init__(self, folder: Path):
        self.folder, self.good = folder, folder / "good"
        self.good.mkdir()
        _write_data_set(self.good)
        self.patches = {patch.tobytes() for patch in PatchRecords.open(self.good)}
        self.shards = [path.read_bytes() for path in sorted(self.good.glob("*.tfrecords"))]

    def __call__(self, chance: random.Random) -> str:
        folder = self.folder / "data"
        shutil.copytree(self.good, folder)
        manifest = folder / MANIFEST_NAME
        if chance.random() < 0.3:
            manifest.unlink()  # these are taken for patches of the authors' size
        elif chance.random() < 0.4:
            manifest.write_bytes(json_changed(chance, manifest.read_bytes()))
        if chance.random() < 0.7:
            path = folder / f"{chance.randrange(2)}.tfrecords"
            path.write_bytes(damaged(chance, path.read_bytes(), self.shards))
        try:
            records = PatchRecords.open(folder)
        except DataError:
            return "DataError when opened"
        refused = 0
        for index in range(len(records)):
            try:
                assert records[index].tobytes() in self.patches, "a damaged patch was read"
            except DataError:
                refused += 1
            assert str(folder) in records.describe(index)
        try:
            whose = records.patches()
            assert len(whose) == len(records)
        except DataError:
            refused += 1
        return "DataError when read" if refused else "read"


class Manifests:
    """Reading a manifest of any bytes."""

    def __init__(self, folder: Path):
        self.folder = folder
        _write_data_set(folder)
        self.content = (folder / MANIFEST_NAME).read_bytes()
        self.others = [self.content, json.dumps([1, 2, {"format": 1}]).encode()]

    def __call__(self, chance: random.Random) -> str:
        content = json_changed(chance, self.content)
        if chance.random() < 0.3:
            content = damaged(chance, content, self.others)
        (self.folder / MANIFEST_NAME).write_bytes(content)
        try:
            manifest = Manifest.read(self.folder)
        except DataError:
            return "DataError"
        for shard in manifest.shards:
            try:
                manifest.patches_of(shard.name)
            except DataError:
                continue
        manifest.write(self.folder)
        assert Manifest.read(self.folder) == manifest
        return "read"


class MatFiles:
    """Reading DND's pictures and SIDD's blocks."""

    def __init__(self, folder: Path):
        self.path = folder / "file.mat"
        random = np.random.default_rng(2)
        picture = random.random((3, 9, 7)).astype(np.float32)
        pictures = [
            self._hdf5(picture),
            self._hdf5(picture.astype(np.float64), chunks=(1, 3, 7), compression="gzip"),
            self._hdf5(picture, chunks=(3, 3, 3), shuffle=True, compression="gzip"),
        ]
        blocks = random.integers(0, 256, (1, 2, 6, 6, 3), np.uint8)
        cells = np.array([blocks[0], "text", {"b": 1.5}], object)
        arrays = [blocks, blocks[..., 0], blocks.astype(np.float64), "text", {"a": blocks[0]}]
        arrays += [cells, scipy.sparse.eye(5), np.ones((2, 3), np.complex128)]
        files = []
        for array in arrays:
            for compressed in (False, True):
                file = io.BytesIO()
                scipy.io.savemat(file, {"Blocks": array}, do_compression=compressed)
                files.append(file.getvalue())
        files += files[:2] * 3  # good ones
        self.contents = [pictures, files]
        self.path.touch()

    def _hdf5(self, array, **options):
        file = io.BytesIO()
        with h5py.File(file, "w", userblock_size=512) as stored:
            stored.create_dataset("InoisySRGB", data=array, **options)
        return file.getvalue()

    def __call__(self, chance: random.Random) -> str:
        kind = chance.randrange(2)
        content = chance.choice(self.contents[kind])
        self.path.write_bytes(damaged(chance, content, self.contents[kind]))
        try:
            if kind:
                blocks = read_blocks(self.path)
                assert blocks.ndim == 5 and blocks.shape[-1] == 3 and blocks.dtype == np.uint8
                return "blocks read"
            with open_dnd(self.path) as noisy:
                picture = noisy[()].T
            assert picture.ndim == 3 and picture.shape[-1] == 3 and picture.size
            assert picture.dtype.kind == "f"
            return "picture read"
        except (DataError, ImageError) as error:
            return type(error).__name__
