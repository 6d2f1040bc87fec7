"""Finds the training patches that a `--dataset` names, and makes them where need be."""

import contextlib
import os
import shlex
import sys
from pathlib import Path

from cbsn.data.manifest import MANIFEST_NAME
from cbsn.data.paired_records import PairedRecords
from cbsn.data.records import RECORD_SUFFIX, PatchRecords
from cbsn.errors import ConfigError, DataError
from cbsn.value_range import check_white
from data_prep.prepare import prepare, prepared_folder

BENCHMARKS = ("SIDD", "DND")

_LOOKED_AT = 64


def open_records(
    dataset: str,
    source: Path,
    *,
    second_shots: str | None = None,
    white: float | None = None,
    convert: bool = True,
) -> PatchRecords | PairedRecords:
    """Opens the patches of a data set.

    Args:
        dataset: `SIDD` or `DND` (prepared before), a folder that `prepare_dataset.py` wrote, a
            record file or a folder of them, or pictures: a folder or a glob.
            Pictures are prepared as `prepare_dataset.py --dataset` would, unless they are.
        source: folder in which the prepared SIDD and DND lie.
        second_shots: as `dataset`, a second shot of each of its pictures, or None.
        white: what white is in the pictures, as `prepare` takes it; None as they show it.
        convert: whether to prepare pictures; if not, another process has just done it.

    Raises:
        ConfigError: if the patches were prepared with another `white`.
        DataError: if there is nothing of that name, or it is damaged, or two shots do not fit.
    """
    check_white(white)
    opened = []
    for name in (dataset, second_shots):
        if name:
            try:
                opened.append(_open(name, source, white, convert))
            except OSError as error:
                raise DataError(f"{name} cannot be read: {error}") from error
    return PairedRecords(*opened) if second_shots else opened[0]


def is_gray(records: PatchRecords | PairedRecords) -> bool:
    """Says whether pictures are gray, by some of their patches; damaged ones do not count."""
    step = -(-len(records) // _LOOKED_AT)
    for index in range(0, len(records), step):
        with contextlib.suppress(DataError):
            patch = records[index]
            shots = patch.reshape(*patch.shape[:-1], -1, 3)
            if (shots != shots[..., :1]).any():
                return False
    return True


def _open(dataset: str, source: Path, white: float | None, convert: bool) -> PatchRecords:
    if dataset.upper() in BENCHMARKS:
        return _prepared(_benchmark(dataset.upper(), source), white)
    path = Path(dataset).expanduser()
    if (
        path.suffix == RECORD_SUFFIX
        or (path / MANIFEST_NAME).exists()
        or any(path.glob(f"*{RECORD_SUFFIX}"))
    ):
        return _prepared(path, white)
    if not convert:
        return PatchRecords.open(prepared_folder(dataset))
    report = prepare(dataset, white=white, workers=os.cpu_count() or 1)
    print(report, file=sys.stderr if report.failed else sys.stdout)
    return PatchRecords.open(report.out)


def _prepared(path: Path, white: float | None) -> PatchRecords:
    """Opens patches that are there, whose white cannot be chosen any more."""
    records = PatchRecords.open(path)
    manifest = records.manifest
    if white is not None and (manifest is None or manifest.white != white):
        if manifest is None or manifest.kind != "folder":
            advice = "What white is in them is known: omit --white."
        else:
            command = ("python", "prepare_dataset.py", "--dataset", manifest.root, "--out", path)
            command = shlex.join([*map(str, command), "--white", f"{white}", "--force"])
            advice = f"Prepare them anew with `{command}`, or omit --white."
        raise ConfigError(
            f"The patches of {path} were prepared with another white. {advice} "
            f"Received: --white {white:g}"
        )
    return records


def _benchmark(name: str, source: Path) -> Path:
    candidates = (source / f"{name}256", source / f"{name}256{RECORD_SUFFIX}")
    for candidate in candidates:
        if candidate.exists():
            return candidate
    raise DataError(
        f"{name} is not prepared: neither {candidates[0]} nor {candidates[1]} is there. Run "
        f"`python prepare_dataset.py --dataset {name} --source FOLDER_OF_{name}`, or say with "
        "--source where it lies."
    )
