"""Several workers, as processes that find each other over loopback."""

import os
import re
import signal
import sys
import threading
import time
import types

import numpy as np
import pytest
import tensorflow as tf

from cbsn.cli.launch import launch

WORKERS = ("-m", "cbsn", "launch", "--workers", "2", "--")
LONGER = ("--maxiter", 80, "--print_every", 20)


@pytest.fixture(scope="module")
def uninterrupted(start):
    """The output of two workers' run, which lies in the folder `workers`."""
    process = start(WORKERS, "--name", "workers", *LONGER)
    output = process.communicate(timeout=240)[0]
    assert process.returncode == 0, output
    return output


@pytest.mark.slow
def test_two_devices_and_two_workers_give_the_weights_of_one(uninterrupted, start, read_state):
    outputs = {"workers": uninterrupted}
    for name, devices in (("devices", 2), ("one", 1)):
        process = start(start.train, "--name", name, "--cpu_devices", devices, *LONGER)
        outputs[name] = process.communicate(timeout=240)[0]
        assert process.returncode == 0, outputs[name]
    for output in outputs.values():
        assert "Traceback" not in output
    one = read_state(start.runs / "one")
    assert int(one["step/.ATTRIBUTES/VARIABLE_VALUE"]) == 80
    for name in ("devices", "workers"):
        assert "devices: 2" in outputs[name]
        other = read_state(start.runs / name)
        assert one.keys() == other.keys()
        for key, value in one.items():
            np.testing.assert_allclose(value, other[key], atol=1e-5, err_msg=f"{name}: {key}")

    # Only the chief writes and speaks.
    assert "Workers: 2, devices: 2" in outputs["workers"]
    assert outputs["workers"].count("step 80: total") == 1
    assert outputs["workers"].count("Denoise with") == 1
    assert len(list((start.runs / "workers/events").iterdir())) == 1
    lines = (start.runs / "workers/metrics.jsonl").read_text().splitlines()
    assert [re.search(r'"step": (\d+)', line)[1] for line in lines] == ["20", "40", "60", "80"]


@pytest.mark.slow
def test_all_workers_and_devices_get_the_same_noise_model(start, read_state):
    """As one of its own does, at the end of the bootstrap."""
    flags = ("--recipe", "pn2v-unet", "--depth", 1, "--samples", 4, "--bootstrap_steps", 20)
    small = tuple(each for each in start.small if each not in ("--block", 1))
    commands = {"workers-pn2v": WORKERS, "one-pn2v": start.train, "devices-pn2v": start.train}
    for name, command in commands.items():
        devices = ("--cpu_devices", 2) if name == "devices-pn2v" else ()
        process = start(command, "--name", name, *flags, *devices, small=small)
        output = process.communicate(timeout=240)[0]
        assert process.returncode == 0, output
        assert output.count("step 20: The noise model is fitted to") == 1
    one = read_state(start.runs / "one-pn2v")
    for name in ("devices-pn2v", "workers-pn2v"):
        other = read_state(start.runs / name)
        assert one.keys() == other.keys()
        for key, value in one.items():
            if value.shape == (3, 3, 2):  # of the mixture, which other pixels of 400 may change
                assert np.isfinite(other[key]).all() and other[key].std() > 0.01
                continue
            atol = 0.1 if value.shape == (3, 2) else 1e-5  # the range of what is predicted there
            np.testing.assert_allclose(value, other[key], atol=atol, err_msg=f"{name}: {key}")


@pytest.mark.parametrize(
    ("gpus", "visible", "workers", "seen"),
    [
        (0, None, 2, ["None", "None"]),
        (0, "", 2, ["", ""]),
        (2, None, 2, ["0", "1"]),
        (4, None, 2, ["0,2", "1,3"]),
        (2, "3,GPU-5e", 2, ["3", "GPU-5e"]),
        (2, "1,0,-1,2", 2, ["1", "0"]),  # those after -1 do not count
        (1, None, 2, ["", ""]),
    ],
)
def test_each_worker_has_gpus_of_its_own_or_none(monkeypatch, capfd, gpus, visible, workers, seen):
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [kind] * gpus)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    code = (
        "import json, os;"
        "index = json.loads(os.environ['TF_CONFIG'])['task']['index'];"
        "print(f'worker {index} sees', os.environ.get('CUDA_VISIBLE_DEVICES'), 'alone')"
    )
    assert launch([sys.executable, "-c", code], workers) == 0
    lines = capfd.readouterr().out.splitlines()
    for index, value in enumerate(seen):
        assert f"worker {index} sees {value} alone" in lines
    line = "2 workers cannot share 1 GPU, so they compute on the CPU."
    assert (line in lines) == (gpus == 1)


@pytest.mark.slow
def test_all_workers_get_the_arrays_of_the_chief(capfd):
    code = (
        "import numpy as np; from cbsn.training.distribution import Workers;"
        "workers = Workers.join();"
        "arrays = [np.full(shape, workers.index + 7.1, 'float32') for shape in ((), (2, 3))];"
        "got = workers.of_chief(arrays);"
        "same = all((a == np.float32(7.1)).all() and a.shape == b.shape"
        " for a, b in zip(got, arrays, strict=True));"
        "print(f'worker {workers.index} of {workers.count}: {same}')"
    )
    assert launch([sys.executable, "-c", code], 2) == 0
    lines = capfd.readouterr().out
    for index in (0, 1):
        assert f"worker {index} of 2: True" in lines


def _signal_worker(process, worker, number):
    """Sends a signal to one worker when step 20 is done; returns what is printed after that."""
    workers = {}
    for line in process.stdout:
        if match := re.match(r"Worker (\d+) at .*: process (\d+)", line):
            workers[int(match[1])] = int(match[2])
        if line.startswith("step 20:"):
            break
    os.kill(workers[worker], number)
    return process.communicate(timeout=240)[0]


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_worker_ends_the_run_and_all_go_on(uninterrupted, start, read_state, victim):
    name = f"killed{victim}"
    process = start(WORKERS, "--name", name, *LONGER)
    rest = _signal_worker(process, victim, signal.SIGKILL)
    assert process.returncode not in (0, 75), rest
    assert "A worker is gone" in rest
    assert "start all of them again" in rest
    assert "Traceback" not in rest

    again = start(WORKERS, "--name", name, *LONGER)
    output = again.communicate(timeout=240)[0]
    assert again.returncode == 0, output
    assert 15 <= int(re.search(r"steps (\d+) to 80;", output)[1]) < 80
    whole, parts = (read_state(start.runs / run) for run in ("workers", name))
    assert whole.keys() == parts.keys()
    for key, value in whole.items():
        np.testing.assert_array_equal(value, parts[key], err_msg=key)


@pytest.mark.slow
def test_one_worker_that_is_asked_to_stop_stops_all(start, read_state):
    process = start(WORKERS, "--name", "stopped", *LONGER)
    rest = _signal_worker(process, 1, signal.SIGTERM)
    assert process.returncode == 75, rest
    (step,) = set(re.findall(r"it is saved at step (\d+)", rest))
    assert "Another worker stopped the run" in rest
    assert "SIGTERM stopped the run" in rest
    assert int(read_state(start.runs / "stopped")["step/.ATTRIBUTES/VARIABLE_VALUE"]) == int(step)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--cpu_devices", 2), "--cpu_devices 2"),
        (("--batchsize", 7), "--batch_size is divided among 2 workers"),
        (("--dataset", "nowhere"), "nowhere"),
    ],
)
def test_mistakes_end_all_workers(start, flags, message):
    process = start(WORKERS, "--name", "mistake", *flags)
    output = process.communicate(timeout=240)[0]
    assert process.returncode in (1, 2)
    assert message in output
    assert "Traceback" not in output
    assert not (start.runs / "mistake").exists()


@pytest.mark.parametrize(
    ("statuses", "expected", "told"),
    [((0, 0), 0, ""), ((0, 3), 3, "Worker 1 failed first; "), ((75, 75), 75, "")],
)
def test_the_status_is_that_of_the_first_failure(statuses, expected, told, capfd):
    code = (
        "import json, os, sys; config = json.loads(os.environ['TF_CONFIG']);"
        f"sys.exit({statuses}[config['task']['index']])"
    )
    assert launch([sys.executable, "-c", code], 2) == expected
    output = capfd.readouterr().err
    assert told in output and ("failed first" in output) == bool(told)


def test_workers_that_do_not_end_are_killed(monkeypatch, capsys):
    monkeypatch.setattr("cbsn.cli.launch.PATIENCE", 0.5)
    code = (
        "import os, sys, time;"
        "sys.exit(4) if '\"index\": 0' in os.environ['TF_CONFIG'] else time.sleep(600)"
    )
    assert launch([sys.executable, "-c", code], 2) == 4
    assert "killing them" in capsys.readouterr().err


@pytest.mark.skipif(sys.platform == "win32", reason="Windows sends no SIGINT to one process")
@pytest.mark.parametrize("platform", [sys.platform, "win32"])
def test_ctrl_c_is_passed_on_unless_the_console_has_sent_it(tmp_path, monkeypatch, platform):
    system = types.SimpleNamespace(platform=platform, executable=sys.executable, stderr=sys.stderr)
    monkeypatch.setattr("cbsn.cli.launch.sys", system)
    code = (
        "import os, pathlib, signal, sys, time;"
        "signal.signal(signal.SIGINT, lambda *_: sys.exit(6));"
        f"folder = pathlib.Path({str(tmp_path)!r});"
        "(folder / f'ready {os.getpid()}').touch()\n"
        "while not (folder / 'end').exists(): time.sleep(0.02)\n"
        "sys.exit(5)"
    )

    def press():
        while len([*tmp_path.glob("ready *")]) < 2:
            time.sleep(0.02)
        signal.raise_signal(signal.SIGINT)
        if platform == "win32":
            (tmp_path / "end").touch()

    thread = threading.Thread(target=press, daemon=True)
    thread.start()
    assert launch([sys.executable, "-c", code], 2) == (5 if platform == "win32" else 6)
    thread.join()
