import errno
import json
import re

import h5py
import numpy as np
import pytest
import scipy.io
from PIL import Image

from cbsn.errors import ConfigError, ImageError, ModelError
from cbsn.evaluation.submit import benchmarks


def files(out, but=("submission.json", "seconds.txt")):
    """Names and content of all files, less the date in those of MATLAB."""
    return {
        str(path.relative_to(out)): path.read_bytes()[116 if path.suffix == ".mat" else 0 :]
        for path in out.rglob("*")
        if path.is_file() and path.name not in but
    }


def record(out):
    return json.loads((out / "submission.json").read_text())


def bundle(submission):
    return submission.out / submission.BUNDLES[0]


@pytest.fixture
def whole(begin, counting, tmp_path):
    """The files of a submission that nothing has interrupted, and the calls that it took."""
    denoise = counting()
    begin("whole").run(denoise)
    return files(tmp_path / "whole"), denoise.calls


def test_interrupted_it_goes_on_with_what_is_missing(begin, whole, counting, tmp_path, capsys):
    expected, calls = whole
    parts = calls - 1
    submission = begin()
    with pytest.raises(RuntimeError, match="power cut"):
        submission.run(counting(fail_at=9))
    seventh = f"{submission.PART} {[*submission.shapes][7]} failed"
    assert seventh in capsys.readouterr().err
    assert not bundle(submission).exists()
    assert len([*submission.parts.iterdir()]) == 7
    assert record(tmp_path / "out")["complete"] is False

    denoise = counting()
    begin(resume=True).run(denoise)
    assert denoise.calls == parts - 7 + 1  # the first of them twice
    assert files(tmp_path / "out") == expected
    assert record(tmp_path / "out")["complete"] is True
    times = (tmp_path / "out" / "seconds.txt").read_text().splitlines()
    assert [line.split()[0] for line in times] == [*submission.shapes]


def test_a_finished_one_is_not_computed_again(begin, counting, tmp_path):
    begin().run(counting())
    before = record(tmp_path / "out")
    denoise = counting()
    begin(resume=True).run(denoise)
    assert denoise.calls == 0
    assert record(tmp_path / "out") == before


def test_damaged_parts_are_made_again(begin, whole, counting, tmp_path):
    submission = begin()
    submission.run(counting())
    paths = sorted(submission.parts.iterdir())
    paths[2].write_bytes(paths[2].read_bytes()[:-20])
    paths[5].write_bytes(b"")
    paths[6].unlink()
    shape = next(iter(submission.shapes.values()))
    submission.save(paths[8], np.zeros((shape[0] + 1, *shape[1:]), submission.DTYPE))
    denoise = counting()
    begin(resume=True).run(denoise)
    assert denoise.calls == 4 + 1
    assert files(tmp_path / "out") == whole[0]


def test_an_old_bundle_is_gone_before_newer_parts_come(begin, counting):
    submission = begin()
    submission.run(counting())
    next(submission.parts.iterdir()).unlink()
    assert bundle(submission).exists()
    with pytest.raises(RuntimeError, match="power cut"):
        begin(resume=True).run(counting(fail_at=1))
    assert not bundle(submission).exists()
    assert record(submission.out)["complete"] is False


def test_earlier_work_is_not_touched_without_resume(begin, counting, tmp_path):
    with pytest.raises(RuntimeError):
        begin().run(counting(fail_at=5))
    before = files(tmp_path / "out", but=())
    with pytest.raises(ConfigError, match=r"out already holds a submission .*--resume .*--out"):
        begin()
    assert files(tmp_path / "out", but=()) == before


def test_resume_begins_where_nothing_is(begin, whole, counting, tmp_path):
    begin(resume=True).run(counting())
    assert files(tmp_path / "out") == whole[0]


def test_other_files_in_the_folder_stay(begin, counting, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes.txt").write_text("mine")
    begin().run(counting())
    assert (tmp_path / "out" / "notes.txt").read_text() == "mine"


def test_other_settings_are_refused(begin, counting, tmp_path):
    model = {"path": "m", "sha256": "12ab"}
    begin().run(counting(), settings={"tile": "auto", "seed": 0}, model=model)
    before = files(tmp_path / "out", but=())
    other = {"path": "n", "sha256": "34cd"}
    expected = "model m, SHA-256 12ab (now n, SHA-256 34cd), seed 0 (now 1). Use the"
    with pytest.raises(ConfigError, match=re.escape(f"out was started differently: {expected}")):
        begin(resume=True).run(counting(), settings={"tile": "auto", "seed": 1}, model=other)
    assert files(tmp_path / "out", but=()) == before
    moved = {**model, "path": "elsewhere"}
    begin(resume=True).run(counting(), settings={"tile": "auto", "seed": 0}, model=moved)


def test_another_benchmark_is_refused(sidd_source, dnd_source, counting, tmp_path):
    benchmarks.SiddSubmission(sidd_source, tmp_path).run(counting())
    with pytest.raises(ConfigError, match=r"started differently: benchmark sidd \(now dnd\)"):
        benchmarks.DndSubmission(dnd_source, tmp_path, resume=True).run(counting())


@pytest.mark.parametrize("content", [None, "", "[]", "{}", '{"model": {}}', "[" * 100_000])
def test_without_a_record_nothing_is_gone_on_with(begin, counting, tmp_path, content):
    begin().run(counting())
    path = tmp_path / "out" / "submission.json"
    path.unlink() if content is None else path.write_text(content)
    with pytest.raises(ConfigError, match=r"submission\.json.*it is unknown.*another --out"):
        begin(resume=True).run(counting())


def test_a_file_as_out_is_refused(begin, tmp_path):
    (tmp_path / "out").write_text("a file")
    with pytest.raises(ConfigError, match="--out must be a folder"):
        begin()


@pytest.mark.parametrize("kind", [ImageError, ModelError])
def test_a_failing_part_is_named(begin, counting, kind):
    submission = begin()
    third = [*submission.shapes][2]
    with pytest.raises(kind, match=f"^{submission.PART} {third}: no good$"):
        submission.run(counting(fail_at=4, error=kind("no good")))
    assert len([*submission.parts.iterdir()]) == 2


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda y: y[1:], ", expected "),
        (lambda y: y.astype(np.float64), "is float64"),
        (lambda y: y[..., 0], ", expected "),
    ],
)
def test_an_unusable_result_is_refused(begin, counting, spoil, reason):
    submission = begin()
    with pytest.raises(ImageError, match=rf"{submission.PART} \d\S+: the denoiser's .*{reason}"):
        submission.run(lambda noisy: spoil(counting()(noisy)))
    assert not [*submission.parts.iterdir()]


def test_values_that_are_not_finite_are_refused(dnd_source, tmp_path):
    submission = benchmarks.DndSubmission(dnd_source, tmp_path / "out")
    with pytest.raises(ImageError, match=r"crop 0001_01: .* not finite"):
        submission.run(lambda noisy: noisy * np.float32(np.nan))


@pytest.fixture
def fill_disk(monkeypatch):
    """Makes the n-th picture or MATLAB file the one for which there is no room."""
    count = 0

    def limited(write, place, number):
        def run(*arguments, **options):
            nonlocal count
            count += 1
            if count == number:
                arguments[place].write_bytes(b"half")
                raise OSError(errno.ENOSPC, "No space left on device")
            return write(*arguments, **options)

        return run

    def fill(number):
        monkeypatch.setattr(Image.Image, "save", limited(Image.Image.save, 1, number))
        monkeypatch.setattr(scipy.io, "savemat", limited(scipy.io.savemat, 0, number))

    return fill


@pytest.mark.parametrize("in_bundle", [False, True])
def test_on_a_full_disk_the_earlier_parts_stay(
    begin, whole, counting, tmp_path, fill_disk, in_bundle
):
    submission = begin()
    room = len(submission.shapes) if in_bundle else 3
    fill_disk(room + 1)
    with pytest.raises(ConfigError, match=r"out cannot be written: No space left .*--resume"):
        submission.run(counting())
    assert not bundle(submission).exists()
    kept = [path.stem.removesuffix("_DN") for path in submission.parts.iterdir()]
    assert sorted(kept) == [*submission.shapes][:room]
    assert not list(tmp_path.rglob(".*"))
    begin(resume=True).run(counting())
    assert files(tmp_path / "out") == whole[0]


@pytest.fixture
def timed(counting, monkeypatch):
    """A denoiser that takes 100 s the first time, and 1 s later on."""
    now = 0.0
    monkeypatch.setattr("time.perf_counter", lambda: now)

    class Timed(counting):
        def __call__(self, noisy):
            nonlocal now
            now += 1 if self.calls else 100
            return super().__call__(noisy)

    return Timed


def test_the_first_call_is_not_timed(begin, timed, tmp_path):
    submission = begin()
    submission.run(timed())
    times = (tmp_path / "out" / "seconds.txt").read_text()
    assert times == "".join(f"{name} 1.0\n" for name in submission.shapes)
    pixels = np.prod(next(iter(submission.shapes.values()))[:2])
    assert record(tmp_path / "out")["seconds_per_megapixel"] == pytest.approx(2**20 / pixels)


def test_times_of_before_count(begin, timed, tmp_path, capsys):
    submission = begin()
    names = [*submission.shapes]
    with pytest.raises(RuntimeError):
        submission.run(timed(fail_at=6))
    # The last one was being written when the power went.
    times = f"{names[0]} 10\n{names[1]} 30\nnonsense\n{names[2]} 20\n{names[3]} 9"
    (tmp_path / "out" / "seconds.txt").write_text(times)
    begin(resume=True).run(timed())
    pixels = np.prod(next(iter(submission.shapes.values()))[:2])
    mean = (10 + 30 + 20 + len(names) - 4) / (len(names) - 1) * 2**20 / pixels
    assert record(tmp_path / "out")["seconds_per_megapixel"] == pytest.approx(mean)
    assert f", {mean:.3f} s per megapixel" in capsys.readouterr().out


def test_without_any_time_there_is_no_mean(begin, timed, tmp_path):
    begin().run(timed())
    (tmp_path / "out" / "seconds.txt").unlink()
    begin(resume=True).run(timed())
    assert record(tmp_path / "out")["seconds_per_megapixel"] is None


def _few_blocks(folder, random):
    blocks = random.integers(256, size=(1, 3, 8, 8, 3), dtype=np.uint8)
    scipy.io.savemat(folder / benchmarks.FILE, {benchmarks.VARIABLE: blocks})


def _few_boxes(folder, random):
    (folder / "images_srgb").mkdir()
    with h5py.File(folder / "info.mat", "w") as info:
        info["boxes"] = np.array([[1, 2], [3, 4], [5, 6], [7, 8]], float)
        references = [[info["boxes"].ref, info["boxes"].ref]]
        info.create_dataset("info/boundingboxes", data=references, dtype=h5py.ref_dtype)
    for number in (1, 2):
        with h5py.File(folder / "images_srgb" / f"{number:04d}.mat", "w") as file:
            file["InoisySRGB"] = random.random((3, 9, 9), dtype=np.float32)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "write"), [("sidd", _few_blocks), ("dnd", _few_boxes)])
def test_killed_at_any_moment_it_ends_with_the_same_files(
    run_command, tmp_path, random, kind, write
):
    (tmp_path / "source").mkdir()
    write(tmp_path / "source", random)
    run = run_command("tests/evaluation/submit/killed_everywhere.py", "source", kind)
    assert run.returncode == 0, run.stderr
    moments = run.stdout.splitlines()[-1].split()
    assert moments[0] == "moments:" and min(map(int, moments[1:])) > 10
