import shutil
import subprocess

import pytest

from cbsn.cli import COMMANDS


@pytest.mark.parametrize("shell", ["bash", "zsh", "tcsh"])
def test_scripts(run_here, tmp_path, shell):
    run = run_here("completion", shell)
    assert run.returncode == 0, run.stderr
    for name in COMMANDS:
        assert name in run.stdout
    if shutil.which(shell):
        (tmp_path / "script").write_text(run.stdout, encoding="utf-8")
        subprocess.run([shell, "-n", tmp_path / "script"], check=True)


@pytest.mark.skipif(not shutil.which("bash"), reason="there is no bash")
@pytest.mark.parametrize(
    ("words", "found"), [(["cbsn", "mod"], "models"), (["cbsn", "denoise", "--stre"], "--strength")]
)
def test_bash_completes(run_here, tmp_path, words, found):
    (tmp_path / "script").write_text(run_here("completion", "bash").stdout, encoding="utf-8")
    code = f"""
        source ./script
        COMP_WORDS=({" ".join(words)}) COMP_CWORD={len(words) - 1}
        _shtab_cbsn
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    run = subprocess.run(["bash", "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert found in run.stdout.split(), run.stderr
