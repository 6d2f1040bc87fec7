import keras
import tensorflow as tf

import cbsn


def test_what_a_bug_report_needs(run_here, monkeypatch):
    monkeypatch.setenv("TF_CLI_CONFIG_FILE", "/home/somebody/secret")
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    run = run_here("info")
    assert run.returncode == 0, run.stderr
    facts = dict(line.split("  ", 1) for line in run.stdout.splitlines())
    facts = {name.strip(): value.strip() for name, value in facts.items()}
    assert facts["cbsn"].startswith(cbsn.__version__)
    assert facts["TensorFlow"] == tf.__version__
    assert facts["Keras"] == f"{keras.__version__}, backend tensorflow"
    assert facts["precision"].partition(":")[0] in ("float32", "mixed_bfloat16", "mixed_float16")
    assert facts["engines"].split(", ")[0] == "tensorflow"
    assert facts["measured"] == "no engines yet"
    assert facts["models"].startswith("photo, photo-large, in ")
    assert "OMP_NUM_THREADS=2" in facts["environment"]
    assert "secret" not in run.stdout
