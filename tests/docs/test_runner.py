"""What checks and runs the pages notices what is wrong in them."""

import textwrap

import pytest

from tests.docs.pages import PageError, anchors, blocks_of, broken_links, check_block, commands_of
from tests.docs.scratch import Runner, make_programs
from tests.docs.smaller import smaller


@pytest.fixture
def write(tmp_path):
    """Writes a page."""

    def page(text):
        path = tmp_path / "page.md"
        path.write_text(textwrap.dedent(text), encoding="utf-8")
        return path

    return page


@pytest.fixture
def block(write):
    """Makes a block of one language."""

    def make(language, code):
        return blocks_of(write(f"Text.\n\n```{language}\n{code}\n```\n"))[0]

    return make


@pytest.fixture
def runner(tmp_path):
    (tmp_path / "here").mkdir()
    with Runner(tmp_path / "here", make_programs(tmp_path / "programs")) as runner:
        yield runner


def test_blocks_are_found_with_their_places(write):
    page = write(
        """\
        # Title

        ```sh
        cbsn info
        ```

        - in a list:

          ```python
          x = 1
            # indented
          ```

        <!-- not run: takes a GPU -->
        ```sh
        cbsn train SIDD
        ```

        ````markdown
        ```sh
        cbsn nonsense
        ```
        ````

        ```
        output
        ```
        """
    )
    found = [(b.line, b.language, b.text, b.not_run) for b in blocks_of(page)]
    assert found == [
        (4, "sh", "cbsn info\n", None),
        (10, "python", "x = 1\n  # indented\n", None),
        (16, "sh", "cbsn train SIDD\n", "takes a GPU"),
        (20, "markdown", "```sh\ncbsn nonsense\n```\n", None),
        (26, "", "output\n", None),
    ]


def test_a_reason_belongs_to_the_next_block_only(write):
    page = write("<!-- not run: slow -->\n```sh\na\n```\n\nMore.\n```sh\nb\n```\n")
    assert [b.not_run for b in blocks_of(page)] == ["slow", None]


def test_commands_are_split_as_a_shell_does():
    script = """\
    # a comment
    cbsn denoise 'my photos/*.jpg' --out a  # another
    cbsn train photos/ \\
      --name b && cbsn info > log.txt 2>&1 | cat
    CUDA_VISIBLE_DEVICES= cbsn noise photos/ ; eval "$(cbsn completion bash)"
    """
    assert list(commands_of(script)) == [
        ["cbsn", "denoise", "my photos/*.jpg", "--out", "a"],
        ["cbsn", "train", "photos/", "--name", "b"],
        ["cbsn", "info"],
        ["cat"],
        ["cbsn", "completion", "bash"],
        ["cbsn", "noise", "photos/"],
        ["eval", "$(cbsn completion bash)"],
    ]


@pytest.mark.parametrize(
    "command",
    [
        "cbsn demo folder",
        "cbsn --help",
        "cbsn noise --help",
        "make test",
        "make demo PYTHON=python3.12",
        "pip install '.[gpu]'",
        "pip install . pytest",
        "python train.py --help",
        "python -m benchmarks --quick",
        "cbsn launch --workers 2 -- --name trial",
    ],
)
def test_what_exists_passes(block, command):
    check_block(block("sh", command))


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("cbsn denoize photos/", "no command cbsn denoize"),
        ("echo a && cbsn denoize photos/", "no command cbsn denoize"),
        ("cbsn demo folder --sharpen", "--sharpen"),
        ("cbsn launch --workers 2 -- --colour red", "--colour"),
        ("cbns demo folder", "no program cbns"),
        ("make dinner", "no target dinner"),
        ("pip install '.[gpus]'", "no extra gpus"),
        ("pip install tensorflow-magic", "does not name tensorflow-magic"),
        ("pip uninstall numpy", "pip is to install"),
        ("python denoise.py photos", "no script denoise.py"),
        ("python train.py --colour red", "--colour"),
        ("python -m cbsn denoize", "no command cbsn denoize"),
        ("python -m benchmark", "no module benchmark"),
        ("python -m benchmarks --fast", "--fast"),
    ],
)
@pytest.mark.parametrize("mark", ["", "<!-- not run: a reason -->\n"])
def test_what_does_not_exist_fails(write, mark, command, message):
    """Whether the block is run or not; the message names the page and the line."""
    page = write(f"Text.\n\n{mark}```sh\ncd .\n{command}\n```\n")
    with pytest.raises(PageError, match=rf"page.md:\d: .*{message}"):
        check_block(blocks_of(page)[0])


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("import cbsn\ncbsn.sharpen(1)", "no cbsn.sharpen"),
        ("from cbsn.recipes import RECEIPTS", "no cbsn.recipes.RECEIPTS"),
        ("import cbsn.cooking", "no cbsn.cooking"),
        ("x = = 1", "no Python"),
    ],
)
def test_names_that_do_not_exist_fail(block, code, message):
    with pytest.raises(PageError, match=message):
        check_block(block("python", code))
    check_block(block("python", "import cbsn\nfrom cbsn.recipes import RECIPES\ncbsn.errors"))


def test_blocks_in_a_language_that_is_never_run_fail(block):
    with pytest.raises(PageError, match="sh or python"):
        check_block(block("console", "$ cbsn info"))
    check_block(block("json", "{}"))


def test_broken_links_are_named(write, tmp_path):
    (tmp_path / "other.md").write_text(
        "# Other page\n\n## A `b` and (c)\n\n(label)=\n## A `b` and (c)\n"
    )
    (tmp_path / "picture.png").touch()
    page = write(
        """\
        # Here

        [a](other.md) [b](other.md#a-b-and-c) [c](other.md#a-b-and-c-1) [d](other.md#label)
        [e](#here) [f](https://example.com) ![g](picture.png) [two
        lines](missing1.md) ![h](missing2.png) [i](other.md#missing3) [j](#missing4)

        ```sh
        echo '[k](missing5.md)'
        ```

        ```{figure} x
        [l](missing6.md)
        ```
        """
    )
    assert anchors(tmp_path / "other.md") == {"other-page", "a-b-and-c", "a-b-and-c-1", "label"}
    expected = ["missing1.md", "missing2.png", "other.md#missing3", "#missing4", "missing6.md"]
    assert broken_links(page) == expected


def test_blocks_run_in_one_folder(runner, block):
    assert runner.run(block("sh", "echo hello > file.txt")) == ""
    assert runner.run(block("python", "text = open('file.txt').read()")) == ""
    assert runner.run(block("text", "not code")) == ""
    assert runner.run(block("python", "print(text.strip())\nprint(2)")) == "hello\n2\n"


@pytest.mark.parametrize(
    ("language", "code", "message"),
    [
        ("sh", "false\ntrue", "status 1"),
        ("sh", "false | cat", "status 1"),
        ("sh", "echo $UNSET_VARIABLE", "unbound"),
        ("python", "x = 1\nraise ValueError('wrong')", r"line 5(.|\n)*wrong"),
        ("python", "import sys; sys.exit(0)", "the program ended"),
    ],
)
def test_blocks_that_fail_are_named(runner, block, language, code, message):
    with pytest.raises(PageError, match=rf"page.md:4: (.|\n)*{message}"):
        runner.run(block(language, code))


def test_blocks_that_are_not_to_run_do_not(runner, write):
    assert runner.run(blocks_of(write("<!-- not run: x -->\n```sh\nfalse\n```\n"))[0]) == ""


def test_programs_are_those_of_this_checkout(runner, block):
    assert "COMMAND" in runner.run(block("sh", "cbsn --help"))
    assert runner.run(block("sh", "pip install nothing; make nothing; git nothing")) == ""
    with pytest.raises(PageError, match="no command 'denoize'"):
        runner.run(block("sh", "cbsn denoize"))


def test_trainings_are_made_small():
    command = ["train", "photos", "--name", "x", "--steps", "500000"]
    assert smaller(command)[: len(command)] == command
    assert smaller(command)[-2:] == ["--patch_size", "120"]
    assert "--depth" in smaller([*command, "--recipe", "n2v-unet"])
    assert "--depth" in smaller([*command, "--recipe=n2v-unet"])
    assert "--channels" not in smaller([*command, "--init", "photo"])
    assert "--steps" not in smaller(["train", "photos", "--epochs", "20"])
    assert smaller(["launch", "--workers", "2", "--", "--name", "x"])[-2:] == [
        "--patch_size",
        "120",
    ]
    assert smaller(["denoise", "photos"]) == ["denoise", "photos"]
    assert smaller(["denoise", "photos", "--adapt", "5"])[-2] == "--adapt"
