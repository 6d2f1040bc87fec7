import dataclasses
import json
import os

import pytest

from cbsn.errors import ConfigError
from cbsn.training.checkpoints import lock_run, open_run


def test_a_run_is_opened_again(recipe, tmp_path, capsys):
    open_run(tmp_path / "a", recipe, {"average": False})
    open_run(tmp_path / "a", recipe, {"average": False})
    assert capsys.readouterr().out == ""
    open_run(tmp_path / "a", recipe.lasting(10), {"average": False})
    assert "another max_steps: 500000 → 10" in capsys.readouterr().out
    assert json.loads((tmp_path / "a/run.json").read_text())["max_steps"] == 10


@pytest.mark.parametrize("change", ["network_config", "average"])
def test_another_network_cannot_go_on(recipe, tmp_path, change):
    open_run(tmp_path / "a", recipe, {"average": False})
    other = dataclasses.replace(recipe, network_config={"filters": 8, "num_modules": 1})
    with pytest.raises(ConfigError, match=rf"started with {change}=.*--no-resume"):
        if change == "average":
            open_run(tmp_path / "a", recipe, {"average": True})
        else:
            open_run(tmp_path / "a", other, {"average": False})


def test_starting_over_deletes_nothing(recipe, tmp_path, capsys):
    for number in range(3):
        open_run(tmp_path / "a", recipe, {"average": False}, resume=False)
        (tmp_path / "a" / "mark").write_text(str(number))
    assert [(tmp_path / name / "mark").read_text() for name in ("a.1", "a.2", "a")] == [*"012"]
    assert "kept as" in capsys.readouterr().err


def test_a_damaged_run_file_is_named(recipe, tmp_path):
    open_run(tmp_path / "a", recipe, {"average": False})
    (tmp_path / "a/run.json").write_text("{")
    with pytest.raises(ConfigError, match=r"run\.json cannot be read.*--no-resume"):
        open_run(tmp_path / "a", recipe, {"average": False})


def test_what_a_killed_process_left_is_cleared_away(recipe, tmp_path):
    run = tmp_path / "a"
    for name in (".last", "checkpoints/.step-7"):
        (run / f"{name}.0a1b2c3d").mkdir(parents=True)
    # Killed between the two renames that replace a folder.
    (run / "checkpoints/.step-5.0a1b2c3d.old/step-5").mkdir(parents=True)
    open_run(run, recipe, {"average": False})
    left = {str(path.relative_to(run)) for path in run.rglob("*")}
    assert left == {"run.json", "checkpoints", "checkpoints/step-5"}


def test_a_run_is_locked_by_one_process_at_a_time(tmp_path, run_python):
    take = """
        from pathlib import Path
        from cbsn.errors import ConfigError
        from cbsn.training.checkpoints import lock_run
        try:
            with lock_run(Path("runs/a")):
                pass
        except ConfigError as error:
            print(error)
    """
    with lock_run(tmp_path / "runs/a"):
        refused = run_python(take).stdout
        assert f"runs/a is being trained by process {os.getpid()} on " in refused
        with lock_run(tmp_path / "runs/b"):
            pass
    with lock_run(tmp_path / "runs/a"):
        pass


def test_a_dead_process_holds_no_lock(tmp_path, run_python):
    killed = run_python(
        """
        import os, signal
        from pathlib import Path
        from cbsn.training.checkpoints import lock_run
        with lock_run(Path("runs/a")):
            os.kill(os.getpid(), signal.SIGKILL)
        """
    )
    assert killed.returncode == -9
    with lock_run(tmp_path / "runs/a"):
        pass


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(ConfigError, match=r"cannot be locked.*--checkpoints"),
        lock_run(tmp_path / "file/a"),
    ):
        pass
