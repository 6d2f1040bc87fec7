"""What README and the documents say is so: commands, names and links exist, and blocks run."""

import pytest

from tests.docs.pages import PAGES, ROOT, blocks_of, broken_links, check_block
from tests.docs.scratch import make_programs, run_page

NAMES = [str(page.relative_to(ROOT)) for page in PAGES]


@pytest.fixture(params=PAGES, ids=NAMES)
def page(request):
    return request.param


def test_commands_and_names_exist(page):
    for block in blocks_of(page):
        check_block(block)


def test_links_lead_somewhere(page):
    assert broken_links(page) == []


@pytest.mark.slow
def test_blocks_run(page, tmp_path):
    folder = tmp_path / "scratch"
    folder.mkdir()
    run_page(page, folder, make_programs(tmp_path / "programs"))


def test_the_readme_fits_its_purpose():
    """The first command is on the first screen."""
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    first = next(n for n, line in enumerate(lines) if line.startswith("```sh"))
    assert first < 40
