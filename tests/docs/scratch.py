"""Runs the code blocks of a page, in a folder with the pictures and models that pages speak of."""

import json
import os
import shutil
import stat
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import skimage.data
import tifffile
from PIL import Image

from cbsn.models.folder import save_model
from cbsn.noise.cells import simulate_cells
from cbsn.noise.synthetic import simulate_camera
from cbsn.recipes import customised
from tests.docs.pages import ROOT, Block, blocks_of

SMALLER_PYTHON = {
    "train": {"steps": 2, "batch_size": 2, "channels": 4},
    "adapt": {"minutes": 0.02},
}
"""Settings that make functions of the library take seconds; for commands see `smaller.py`."""

_PHOTOGRAPHS = ("astronaut", "chelsea", "rocket")
_NOT_HERE = ("pip", "make", "git", "docker")  # what they name is checked, and they do nothing


def make_scratch(folder: Path, page: Path) -> None:
    """Fills an empty folder with what the blocks of a page need."""
    photographs = {name: getattr(skimage.data, name)() for name in _PHOTOGRAPHS}
    # As large as the patches that pictures are cut into.
    clean = {
        "astronaut": photographs["astronaut"][:256, :256],
        "tree": photographs["chelsea"][:288, 100:356],
        "rocket": photographs["rocket"][:256, :320],  # its sky is flat, so that noise is seen
    }
    noisy, again = ({n: _noisy(p, seed) for n, p in clean.items()} for seed in (1, 2))
    _save(folder / "clean", clean)
    _save(folder / "more", again)
    _save(folder / "shots" / "first", noisy)
    _save(folder / "shots" / "second", again)
    photos = _made(folder / "photos")
    Image.fromarray(noisy["astronaut"]).save(photos / "astronaut.png")
    Image.fromarray(noisy["tree"]).save(photos / "tree.jpg", quality=95)
    for each, pictures in ((photos, noisy), (folder / "clean", clean)):
        sixteen_bits = pictures["rocket"].astype(np.uint16) * 257
        tifffile.imwrite(each / "rocket.tif", sixteen_bits, photometric="rgb")
    (folder / "clean" / "rocket.png").unlink()
    Image.fromarray(noisy["tree"]).save(folder / "photo.jpg", quality=95)
    shutil.copytree(photos, folder / "noisy")
    # Smaller ones, to evaluate on.
    clean = {name: picture[:96, :112] for name, picture in clean.items()}
    noisy = {name: picture[:96, :112] for name, picture in noisy.items()}
    for name in ("dataset/SIDD_VAL", "sidd_val32", "cc15"):
        _save(folder / name / "clean", clean)
        _save(folder / name / "noisy", noisy)
    gray = {name: picture[..., 1] for name, picture in clean.items()}
    for name in ("BSD68", "data/BSD68", "data/train", "data/valid"):
        _save(folder / name, gray)
    _save(folder / "CBSD68", clean)
    _save_stacks(folder)
    if "--name holiday" not in page.read_text(encoding="utf-8"):
        recipe = customised("cbsn", filters=4, num_modules=1)
        save_model(_made(folder / "checkpoints") / "holiday", recipe, recipe.build_network(), {})


def _save_stacks(folder: Path) -> None:
    """Writes a microscope's stacks: two channels, frames without a meaning, planes, a folder."""
    frames = np.stack([noisy for noisy, _ in simulate_cells(5, 96, 96)])
    two = np.stack([frames, 2 * frames], axis=1)
    tifffile.imwrite(folder / "cells.tif", two, imagej=True, metadata={"axes": "TCYX"})
    planes = np.concatenate([frames, frames[::-1]] * 2)
    tifffile.imwrite(folder / "volume.tif", planes, imagej=True, metadata={"axes": "ZYX"})
    options = {"photometric": "minisblack", "metadata": None}
    for name in ("plain.tif", "day1/a.tif", "day1/b.tif"):
        tifffile.imwrite(_made((folder / name).parent) / Path(name).name, frames, **options)


def _noisy(picture: np.ndarray, seed: int) -> np.ndarray:
    return simulate_camera(np.ascontiguousarray(picture), shot=0.005, read=0.01, seed=seed)


def _save(folder: Path, pictures: dict[str, np.ndarray]) -> None:
    for name, picture in pictures.items():
        Image.fromarray(picture).save(_made(folder) / f"{name}.png")


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def make_programs(folder: Path) -> Path:
    """Writes the programs that pages call into a folder, and returns it."""
    head = f"#!{sys.executable}\nimport os, sys\n"
    program = f"""
        sys.path.insert(0, {str(ROOT)!r})
        from tests.docs.smaller import SMALLER, smaller
        python, arguments = {sys.executable!r}, sys.argv[1:]
        if os.path.basename(sys.argv[0]) == "cbsn":
            arguments = ["-m", "cbsn", *smaller(arguments)]
        elif arguments[:2] == ["-m", "benchmarks"]:
            arguments += SMALLER["benchmarks"]
        os.execv(python, [python, *arguments])
    """
    programs = dict.fromkeys(("cbsn", "python", "python3"), textwrap.dedent(program))
    _made(folder)
    for name, text in {**dict.fromkeys(_NOT_HERE, ""), **programs}.items():
        (folder / name).write_text(head + text)
        (folder / name).chmod(stat.S_IRWXU)
    return folder


# Runs the files whose names it reads, one a line, as parts of one program.
_INTERPRETER = """
import functools, json, sys
import cbsn

def smaller(function, few):
    @functools.wraps(function)
    def call(*args, **settings):
        return function(*args, **{**settings, **few})
    return call

few = json.loads(sys.argv[1])
names = {"__name__": "__main__"}
for line in sys.stdin:
    path = line.strip()
    with open(path, encoding="utf-8") as file:
        code = file.read()
    for name in [name for name in few if f"cbsn.{name}(" in code]:
        setattr(cbsn, name, smaller(getattr(cbsn, name), few.pop(name)))
    exec(compile(code, path, "exec"), names)
    print("\\0", flush=True)
"""


class Runner:
    """Runs blocks in a folder; Python blocks see the names of those before them.

    Args:
        folder: where they run.
        programs: the folder of the programs, see `make_programs`.
    """

    def __init__(self, folder: Path, programs: Path):
        self._folder = folder
        self._environment = {
            # The commands themselves are to keep TensorFlow quiet.
            **{k: v for k, v in os.environ.items() if k != "TF_CPP_MIN_LOG_LEVEL"},
            "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "MPLBACKEND": "agg",
            "CUDA_VISIBLE_DEVICES": "",  # some are for machines without a GPU
        }
        self._python: subprocess.Popen | None = None
        self._count = 0

    def __enter__(self) -> "Runner":
        return self

    def __exit__(self, *_) -> None:
        if self._python:
            self._python.communicate()

    def run(self, block: Block) -> str:
        """Runs a block and returns what it prints; raises PageError if it fails."""
        if block.not_run:
            return ""
        if block.language == "sh":
            return self._run_shell(block)
        if block.language == "python":
            return self._run_python(block)
        return ""

    def _run_shell(self, block: Block) -> str:
        ended = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", block.text],
            cwd=self._folder,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        if ended.returncode:
            raise block.fail(f"status {ended.returncode}\n{block.text}\n{ended.stdout}")
        return ended.stdout

    def _run_python(self, block: Block) -> str:
        if not self._python:
            self._python = subprocess.Popen(
                [sys.executable, "-c", _INTERPRETER, json.dumps(SMALLER_PYTHON)],
                cwd=self._folder,
                env=self._environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        assert self._python.stdin
        assert self._python.stdout
        self._count += 1
        # So that a traceback shows the line of the page.
        path = self._folder / f".block{self._count}.py"
        path.write_text("\n" * (block.line - 1) + block.text, encoding="utf-8")
        self._python.stdin.write(f"{path}\n")
        self._python.stdin.flush()
        said = []
        for line in self._python.stdout:
            text, ended, _ = line.partition("\0")
            said.append(text)
            if ended:
                return "".join(said)
        raise block.fail(f"the program ended\n{block.text}\n{''.join(said)}")


def run_page(page: Path, folder: Path, programs: Path) -> None:
    """Runs the blocks of a page in an empty folder, in order."""
    blocks = blocks_of(page)
    if any(block.language in ("sh", "python") and not block.not_run for block in blocks):
        make_scratch(folder, page)
        with Runner(folder, programs) as runner:
            for block in blocks:
                runner.run(block)
