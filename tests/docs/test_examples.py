"""The gallery's scripts name what exists, and run; here with less to do than in the documents."""

import re
import textwrap

import pytest

from tests.docs.pages import ROOT, Block, check_block
from tests.docs.scratch import Runner, make_programs

EXAMPLES = sorted((ROOT / "docs" / "examples").glob("*.py"))


@pytest.fixture(params=EXAMPLES, ids=lambda path: path.name)
def script(request):
    text = request.param.read_text(encoding="utf-8")
    return Block(request.param, 1, "python", text)


def test_names_exist(script):
    check_block(script)


def test_commands_exist(script):
    """The commands are in blocks of comments, as reStructuredText."""
    comments = re.sub(r"^# ?", "", script.text, flags=re.MULTILINE)
    blocks = re.findall(r"^\.\. code-block:: sh\n\n((?: +.*\n|\n)+)", comments, re.MULTILINE)
    assert blocks
    for code in blocks:
        check_block(Block(script.page, 1, "sh", textwrap.dedent(code)))


def test_pages_have_a_title_and_parts(script):
    title, line = script.text.splitlines()[1:3]
    assert line == "=" * len(title)
    assert script.text.count("\n# %%\n") > 2


@pytest.mark.slow
def test_scripts_run(script, tmp_path):
    (tmp_path / "scratch").mkdir()
    with Runner(tmp_path / "scratch", make_programs(tmp_path / "programs")) as runner:
        runner.run(script)
