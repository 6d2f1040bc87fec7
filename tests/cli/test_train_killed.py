"""What is left of a training that is killed, stopped, or runs out of disk."""

import os
import random
import re
import signal
import subprocess
import time

import keras
import numpy as np
import pytest

from cbsn.models.folder import save_model
from cbsn.recipes import customised

resource = pytest.importorskip("resource")  # Windows has none

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(("kills", "steps"), [(3, 36), (25, 100)])
def test_killed_at_random_moments_it_ends_with_the_same_bits(start, read_state, kills, steps):
    whole, parts = f"whole{kills}", f"parts{kills}"
    # Saves so often that kills hit the saving as well as the steps.
    flags = ("--maxiter", steps, "--print_every", 5, "--save_every", 2)
    process = start(start.train, "--name", whole, *flags)
    output = process.communicate(timeout=240)[0]
    assert process.returncode == 0, output

    moments = random.Random(kills)
    starts = []
    for i in range(kills):
        process = start(start.train, "--name", parts, *flags)
        for line in process.stdout:
            if match := re.search(rf"steps (\d+) to {steps};", line):
                starts.append(int(match[1]))
            # Every second kill is among the steps, the others hit the tracing before them.
            if line.startswith("step ") or (match and i % 2):
                break
        time.sleep(moments.uniform(0, 2 if i % 2 else 0.5))
        process.kill()
        assert "Traceback" not in process.communicate()[0]
    process = start(start.train, "--name", parts, *flags)
    output = process.communicate(timeout=240)[0]
    assert process.returncode == 0, output
    starts.append(int(re.search(rf"steps (\d+) to {steps};", output)[1]))
    print(f"killed {kills} times; steps at which it went on: {starts}")
    assert starts == sorted(starts)
    assert starts[1] >= 4
    states = [read_state(start.runs / run) for run in (whole, parts)]
    assert states[0].keys() == states[1].keys()
    for key, value in states[0].items():
        np.testing.assert_array_equal(value, states[1][key], err_msg=key)
    a, b = ((start.runs / run / "metrics.jsonl").read_text() for run in (whole, parts))
    terms = r'"step": \d+, "total": [^,]*, "blind": [^,]*, "self": [^,]*, "invariance": [^,]*'
    assert re.findall(terms, a) == re.findall(terms, b)
    assert not list((start.runs / parts).rglob(".*"))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signals_save_and_exit_with_a_status_of_their_own(start, read_state, number):
    flags = ("--name", number.name, "--maxiter", 20_000, "--print_every", 1, "--save_every", 20_000)
    process = start(start.train, *flags)
    for line in process.stdout:
        if line.startswith("step 3:"):
            break
    process.send_signal(number)
    rest = process.communicate(timeout=240)[0]
    assert process.returncode == 75, rest
    step = int(re.search(rf"{number.name} stopped the run; it is saved at step (\d+)", rest)[1])
    state = read_state(start.runs / number.name)
    assert int(state["step/.ATTRIBUTES/VARIABLE_VALUE"]) == step >= 3
    assert (start.runs / number.name / "last/model.weights.h5").exists()


def test_a_second_run_of_one_name_is_refused(start, train_here):
    first = start(start.train, "--name", "twice", "--maxiter", 20_000, "--print_every", 1)
    for line in first.stdout:
        if line.startswith("step 1:"):
            break
    status, output = train_here("--name", "twice")
    assert status == 2
    assert f"runs/twice is being trained by process {first.pid} on " in output
    first.kill()
    first.communicate()
    status, output = train_here("--name", "twice", "--maxiter", 2)
    assert status == 0, output


def _assert_resumable_after(train_here, name, output, checkpoints):
    """A run that could not write says so, has its checkpoints, and goes on when it can."""
    assert "cannot be saved in" in output
    assert "Free some space" in output
    assert "Traceback" not in output
    kept = {path.name for path in (checkpoints / name / "checkpoints").iterdir()}
    assert all(re.fullmatch(r"step-\d+", path) for path in kept), kept
    status, rest = train_here("--name", name, "--checkpoints", checkpoints)
    assert status == 0, rest
    newest = max((int(path[5:]) for path in kept), default=0)
    assert f"steps {newest} to 20;" in rest


def test_files_that_may_not_grow(start, train_here):
    limit = 100_000  # bytes; a checkpoint takes 110,797

    def restrict():
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    process = start(start.train, "--name", "limited", preexec_fn=restrict)
    output = process.communicate(timeout=240)[0]
    assert process.returncode == 1, output
    _assert_resumable_after(train_here, "limited", output, start.runs)


def test_a_full_disk(start, train_here, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ("mount", "-t", "tmpfs", "-o", "size=400k", "none", str(disk))
    if os.getuid() or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("needs to mount a small tmpfs, which takes root")
    try:
        process = start(start.train, "--name", "full", "--checkpoints", disk)
        output = process.communicate(timeout=240)[0]
        assert process.returncode == 1, output
        assert "No space left on device" in output
        assert "The newest checkpoint is of step" in output
        subprocess.run(("mount", "-o", "remount,size=4m", str(disk)), check=True)
        _assert_resumable_after(train_here, "full", output, disk)
    finally:
        subprocess.run(("umount", str(disk)), check=True)


def test_a_truncated_checkpoint(start, train_here, read_state):
    status, output = train_here("--name", "truncated", "--maxiter", 10)
    assert (status, output.count("Denoise with")) == (0, 1)
    data = start.runs / "truncated/checkpoints/step-10/state.data-00000-of-00001"
    data.write_bytes(data.read_bytes()[:1000])
    process = start(start.train, "--name", "truncated", "--maxiter", 10)
    output = process.communicate(timeout=240)[0]
    assert process.returncode == 0, output
    assert "The checkpoint of step 10 is damaged; using the one before it: " in output
    assert "steps 5 to 10;" in output
    assert int(read_state(start.runs / "truncated")["step/.ATTRIBUTES/VARIABLE_VALUE"]) == 10


PHOTO = (
    *("--recipe", "photo", "--dataset", "patches.tfrecords", "--teacher", "teacher"),
    *("--channel", 4, "--depth", 1, "--patchsize", 32, "--batchsize", 2, "--maxiter", 20),
    *("--rounds", 2, "--precision", "float32", "--print_every", 4, "--save_every", 2),
    *("--checkpoints", "runs"),
)
"""Flags of a training of two rounds, in addition to those of `start`."""


@pytest.fixture
def teacher(start):
    """What teaches in these."""
    keras.utils.set_random_seed(1)
    recipe = customised("distill", filters=4, depth=1)
    save_model(start.folder / "teacher", recipe, recipe.build_network(), {})


def test_killed_in_each_round_it_ends_with_the_same_bits(start, teacher, read_state):
    process = start(start.train, "--name", "whole", small=PHOTO)
    output = process.communicate(timeout=240)[0]
    assert process.returncode == 0, output

    # The first is killed while the teacher is at work, the others in the steps of a round.
    for until in ("teacher:", "step 8: ", "step 4: "):
        process = start(start.train, "--name", "parts", small=PHOTO)
        seen = []
        for line in process.stdout:
            seen.append(line)
            if until in line:
                break
        process.kill()
        assert "Traceback" not in "".join(seen) + process.communicate()[0]
        assert process.returncode == -signal.SIGKILL, seen
    process = start(start.train, "--name", "parts", small=PHOTO)
    output = process.communicate(timeout=240)[0]
    assert process.returncode == 0, output
    assert "steps 20 to 20;" in output
    for run in ("{}-round1", "{}"):
        whole, parts = (read_state(start.runs / run.format(name)) for name in ("whole", "parts"))
        assert whole.keys() == parts.keys()
        for key, value in whole.items():
            np.testing.assert_array_equal(value, parts[key], err_msg=f"{run}: {key}")


def test_two_workers_train_all_rounds(start, teacher):
    launch = ("-m", "cbsn", "launch", "--workers", "2", "--")
    process = start(launch, "--name", "workers", small=PHOTO)
    output = process.communicate(timeout=240)[0]
    assert process.returncode == 0, output
    assert output.count("Workers: 2, devices: 2") == 2
    assert "steps 0 to 20;" in output and "steps 0 to 8;" in output
    assert output.count("Denoise with") == 1
