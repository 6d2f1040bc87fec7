"""The pages of the documents: their code blocks, the commands in these, and their links."""

import ast
import contextlib
import dataclasses
import functools
import importlib
import io
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

from cbsn.__main__ import COMMANDS

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10, where pytest brings the same under another name
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[2]
PAGES = [
    ROOT / "README.md",
    *sorted(p for p in (ROOT / "docs").rglob("*.md") if not {"_build", "gallery"} & {*p.parts}),
]

_FENCE = re.compile(r"^( *)(`{3,}|~{3,})([^\n`]*)\n(.*?)^\1\2`* *$", re.MULTILINE | re.DOTALL)
_NOT_RUN = re.compile(r"<!-- not run: ([^>]+?) -->\s*\Z")
_LINK = re.compile(r"(!?)\[(?:[^\[\]]|\[[^\]]*\])*\]\(([^()\s]+(?:\([^()\s]*\))?)[^)]*\)")
_SEPARATORS = {"&&", "||", "|", ";", "&", "(", ")", "then", "do", "done", "fi"}
_TOOLS = {
    *(".", "base64", "cat", "cd", "cp", "curl", "docker", "echo", "eval", "export", "git", "ls"),
    *("bioimageio", "id", "mkdir", "source", "tar", "tensorboard", "unzip"),
}
"""Programs other than this project's that a page may use."""


@functools.cache
def project() -> dict:
    """Returns the table `project` of pyproject.toml."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


class PageError(AssertionError):
    """A page says what is not so."""


@dataclasses.dataclass(frozen=True)
class Block:
    """A fenced block of code.

    Attributes:
        page: the file that it is in.
        line: number of its first line of code.
        language: what its fence says, such as "sh".
        text: the code.
        not_run: why it is not run, or None if it is.
    """

    page: Path
    line: int
    language: str
    text: str
    not_run: str | None = None

    def __str__(self) -> str:
        return f"{self.page.name}:{self.line}"

    def fail(self, message: str) -> PageError:
        """Returns the error that says what is wrong with the block."""
        return PageError(f"{self}: {message}")


def blocks_of(page: Path) -> list[Block]:
    """Returns the blocks of a page in order."""
    text, blocks = page.read_text(encoding="utf-8"), []
    for found in _FENCE.finditer(text):
        indent, _, language, code = found.groups()
        code = re.sub(f"^{indent}", "", code, flags=re.MULTILINE)
        line = text.count("\n", 0, found.start(4)) + 1
        reason = _NOT_RUN.search(text, 0, found.start())
        blocks.append(Block(page, line, language.strip(), code, reason and reason[1].strip()))
    return blocks


def commands_of(text: str) -> Iterator[list[str]]:
    """Yields the commands of a shell script as lists of words."""
    for line in text.replace("\\\n", " ").splitlines():
        for inner in re.findall(r"\$\(([^()]+)\)", line):
            yield from commands_of(inner)
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        words: list[str] = []
        redirected = False
        for word in lexer:
            if redirected:
                redirected = False
            elif word in (">", ">>", "<", ">&"):
                redirected = True
                if words and words[-1] == "2":
                    words.pop()
            elif word in _SEPARATORS:
                if words:
                    yield words
                words = []
            elif words or not re.match(r"[A-Za-z_]\w*=", word):
                words.append(word)
        if words:
            yield words


def check_block(block: Block) -> None:
    """Raises PageError unless all commands and names in a block exist."""
    if block.language == "python":
        _check_python(block)
    elif block.language == "sh":
        for words in commands_of(block.text):
            _check_command(block, words)
    elif block.language in ("bash", "shell", "console", "py", "python3"):
        raise block.fail(f"blocks that are run are sh or python. Received: {block.language}")


def _check_command(block: Block, words: list[str]) -> None:
    program, *rest = words
    if program == "cbsn":
        _check_cbsn(block, rest)
    elif program in ("python", "python3"):
        _check_script(block, rest)
    elif program == "make":
        makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
        for target in (word for word in rest if "=" not in word):
            if not re.search(rf"^{re.escape(target)}:", makefile, re.MULTILINE):
                raise block.fail(f"the Makefile has no target {target}")
    elif program == "pip":
        _check_pip(block, rest)
    elif program not in _TOOLS:
        raise block.fail(f"there is no program {program}")


def _check_cbsn(block: Block, words: list[str]) -> None:
    name, *flags = words or ["--help"]
    if name in ("--help", "-h", "--version"):
        return
    if name not in COMMANDS:
        raise block.fail(f"there is no command cbsn {name}")
    _parse(block, f"cbsn.cli.{name}", flags, known_only=name == "beam")
    if name == "launch" and "--" in flags:
        _check_cbsn(block, ["train", *flags[flags.index("--") + 1 :]])


def _check_script(block: Block, words: list[str]) -> None:
    if words[0] == "-m":
        module, *flags = words[1:]
        if module == "cbsn":
            _check_cbsn(block, flags)
        elif module == "benchmarks":
            _parse(block, "benchmarks.__main__", flags)
        elif module in ("tests.serving.server", "benchmarks.quality"):
            _parse(block, module, flags)
        elif module not in ("pytest", "venv", "http.server", "tests.fuzz.run"):
            raise block.fail(f"there is no module {module} to run")
    elif not (ROOT / words[0]).is_file():
        raise block.fail(f"there is no script {words[0]}")
    else:
        script = (ROOT / words[0]).read_text(encoding="utf-8")
        found = re.search(
            r"cbsn\.cli\.(\w+)|run_command\(\"(\w+)\"\)|cbsn\.cli import (\w+)", script
        )
        if found:
            _check_cbsn(block, [next(filter(None, found.groups())), *words[1:]])


def _check_pip(block: Block, words: list[str]) -> None:
    about = project()
    extras = about["optional-dependencies"]
    known = {re.split(r"[^\w.-]", each)[0] for each in about["dependencies"]}
    known |= {re.split(r"[^\w.-]", each)[0] for group in extras.values() for each in group}
    known.add(about["name"])
    if words[:1] != ["install"]:
        raise block.fail(f"pip is to install. Received: pip {' '.join(words)}")
    for word in words[1:]:
        if word.startswith("-"):
            continue
        name, _, asked = word.partition("[")
        if name in (".", about["name"]) and asked:
            for extra in asked.rstrip("]").split(","):
                if extra not in extras:
                    raise block.fail(f"pyproject.toml has no extra {extra}")
        elif name != "." and name not in known and not name.startswith("git+https://"):
            raise block.fail(f"pyproject.toml does not name {name}")


def _parse(block: Block, module: str, flags: list[str], *, known_only: bool = False) -> None:
    """Parses flags by a command's parser; with `known_only` others may be among them."""
    parser = importlib.import_module(module).make_parser()
    parse = parser.parse_known_args if known_only else parser.parse_args
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
            parse(flags)
    except SystemExit as ended:
        if ended.code:  # 0 is that of --help
            raise block.fail(f"{shlex.join(flags)}: {said.getvalue().strip()}") from None


def _check_python(block: Block) -> None:
    try:
        tree = ast.parse(block.text)
    except SyntaxError as error:
        raise block.fail(f"no Python: {error}") from error
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "cbsn":
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [a.name for a in node.names if a.name.split(".")[0] == "cbsn"]
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            names = [f"cbsn.{node.attr}"] if node.value.id == "cbsn" else []
        for name in names:
            if not _exists(name):
                raise block.fail(f"there is no {name}")


def _exists(name: str) -> bool:
    """Returns whether there is a module of that name, or such an attribute of a module."""
    with contextlib.suppress(ImportError):
        importlib.import_module(name)
        return True
    module, _, attribute = name.rpartition(".")
    with contextlib.suppress(ImportError):
        return hasattr(importlib.import_module(module), attribute)
    return False


def broken_links(page: Path) -> list[str]:
    """Returns the links of a page to files, pictures and headings that do not exist."""
    text = _prose(page)
    broken = []
    for _, target in _LINK.findall(text):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        is_page = file.suffix == ".md" and file.exists()
        if not _is_there(file) or (anchor and is_page and anchor not in anchors(file)):
            broken.append(target)
    return broken


def _is_there(file: Path) -> bool:
    """Returns whether a file exists, or a page that the gallery's scripts become."""
    gallery = ROOT / "docs" / "gallery"
    if file.is_relative_to(gallery):
        examples = ROOT / "docs" / "examples"
        return file.stem == "index" or (examples / f"{file.stem}.py").is_file() or file == gallery
    return file.exists()


def anchors(page: Path) -> set[str]:
    """Returns the anchors that GitHub and MyST give a page's headings, and its `(name)=` labels."""
    text = _prose(page)
    found, seen = {*re.findall(r"^\(([\w-]+)\)=$", text, re.MULTILINE)}, {}
    for heading in re.findall(r"^#+ +(.+?)\s*#*$", text, re.MULTILINE):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        slug = re.sub(r"[^\w\- ]", "", plain.lower()).replace(" ", "-")
        seen[slug] = seen.get(slug, -1) + 1
        found.add(f"{slug}-{seen[slug]}" if seen[slug] else slug)
    return found


def _prose(page: Path) -> str:
    """Returns a page without its code; directives, such as figures, are no code."""
    text = page.read_text(encoding="utf-8")
    return _FENCE.sub(lambda found: found[0] if found[3].strip().startswith("{") else "", text)
