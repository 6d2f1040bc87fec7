"""The files around the package agree with it: versions, workflow, hooks, image and documents."""

import ast
import importlib
import re
import shlex
from pathlib import Path

import pytest

from cbsn.cli import COMMANDS

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = ("CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")
FORMS = tuple(f".github/ISSUE_TEMPLATE/{name}.yml" for name in ("bug", "question"))


def _read(name):
    return (ROOT / name).read_text(encoding="utf-8")


def _field(name):
    """A field of pyproject.toml that has a line of its own; Python 3.10 reads no TOML."""
    return re.search(rf'^{name} = "(.*)"$', _read("pyproject.toml"), re.MULTILINE)[1]


def _recipe(target):
    """The commands of a target of the Makefile, without its prerequisites' and comments."""
    recipe = re.search(rf"^{target}:.*\n((?:\t.*\n)+)", _read("Makefile"), re.MULTILINE)[1]
    return [shlex.split(line) for line in recipe.replace("\\\n", "").splitlines()]


@pytest.fixture(scope="module")
def workflow():
    yaml = pytest.importorskip("yaml")
    return yaml.safe_load(_read(".github/workflows/tests.yml"))


@pytest.fixture(scope="module")
def commands(workflow):
    """All commands of the workflow's steps, but for Python that they hold."""
    steps = [step for job in workflow["jobs"].values() for step in job["steps"]]
    texts = [
        re.sub(r"<<'END'\n.*?\nEND\n", "\n", step.get("run", ""), flags=re.S) for step in steps
    ]
    return [shlex.split(line) for text in texts for line in text.splitlines()]


def test_versions_agree():
    changelog = re.search(r"^## \[(.*?)\]", _read("CHANGELOG.md"), re.MULTILINE)[1]
    citation = re.search(r"^version: (.*)$", _read("CITATION.cff"), re.MULTILINE)[1]
    assert changelog == citation == _field("version")


def test_the_workflow_runs_the_fast_tests_as_make_does(commands):
    (make,) = _recipe("test")
    (workflow,) = [command for command in commands if command[1:3] == ["-m", "pytest"]]
    assert workflow[1:] == make[1:]


def test_the_workflow_names_what_there_is(commands):
    targets = set(re.findall(r"^([\w-]+):", _read("Makefile"), re.MULTILINE))
    extras = set(re.findall(r"^(\w+) = \[", _read("pyproject.toml"), re.MULTILINE))
    used = {"make": 0, "cbsn": 0}
    for name, *flags in commands:
        if name == "make":
            assert flags[0] in targets
        elif name == "cbsn":
            assert flags[0] in COMMANDS
            importlib.import_module(f"cbsn.cli.{flags[0]}").make_parser().parse_args(flags[1:])
        elif flags[:3] == ["-m", "pip", "install"]:
            assert {*re.findall(r"\.\[(\w+)\]", " ".join(flags))} <= extras
        used[name] = used.get(name, 0) + 1
    assert used["make"] and used["cbsn"] >= 3


def test_the_workflow_takes_the_oldest_and_the_newest_python(workflow):
    classifiers = re.findall(r"Python :: (3\.\d+)", _read("pyproject.toml"))
    oldest, newest = (f(classifiers, key=lambda v: int(v[2:])) for f in (min, max))
    assert _field("requires-python") == f">={oldest},<3.{int(newest[2:]) + 1}"
    for job in ("test", "install"):
        assert workflow["jobs"][job]["strategy"]["matrix"]["python"] == [oldest, newest]


def _tools(commands):
    """Of `python -m ruff check --force-exclude` "ruff check"."""
    words = [[w for w in command[2:] if w != "." and not w.startswith("-")] for command in commands]
    return [" ".join(each) for each in words]


def test_the_hooks_are_the_tools_of_make_lint():
    yaml = pytest.importorskip("yaml")
    (repository,) = yaml.safe_load(_read(".pre-commit-config.yaml"))["repos"]
    hooks = [shlex.split(hook["entry"]) for hook in repository["hooks"]]
    assert _tools(hooks) == _tools(_recipe("lint"))


def test_the_image_gets_what_the_build_reads():
    kept = set(re.findall(r"^!(\S+)$", _read(".dockerignore"), re.MULTILINE))
    assert all((ROOT / name).exists() for name in kept)
    (included,) = re.findall(r"include=\[(.*?)\]", _read("setup.py"))
    folders = {name.partition(".")[0] for name in re.findall(r'"([\w.*]+)"', included)}
    folders |= set(re.findall(r'package_dir=\{"[\w.]+": "(\w+)"\}', _read("setup.py")))
    licence = re.search(r'^license-files = \["(.*)"\]$', _read("pyproject.toml"), re.MULTILINE)[1]
    assert {*folders, _field("readme"), licence, "pyproject.toml", "setup.py"} <= kept


def test_the_image_has_a_python_that_is_supported():
    (python,) = set(re.findall(r"^FROM python:(3\.\d+)", _read("docker/Dockerfile"), re.MULTILINE))
    assert f"Python :: {python}" in _read("pyproject.toml")


@pytest.mark.parametrize("name", DOCUMENTS + FORMS)
def test_documents_name_what_there_is(name):
    text = _read(name)
    assert {*re.findall(r"`cbsn ([a-z]+)", text)} <= COMMANDS.keys()
    for target in re.findall(r"(?:`|^)make ([a-z-]+)", text, re.MULTILINE):
        assert _recipe(target)
    for link in re.findall(r"\]\(([^):]+)\)", text):
        assert (ROOT / link).exists(), link
    for path in re.findall(r"`((?:cbsn|tests|docker|data_prep)/[\w./]+)`", text):
        assert (ROOT / path).exists(), path


ONLY_UNIX = {"fcntl", "grp", "posix", "pty", "pwd", "resource", "syslog", "termios", "tty"}
ONLY_UNIX_OF_OS = {"chown", "fork", "geteuid", "getuid", "killpg", "mkfifo", "nice", "setsid"}
ONLY_UNIX_OF_OS |= {"sync", "uname"}


@pytest.mark.parametrize("package", ["cbsn", "data_prep"])
def test_modules_import_on_windows(package):
    for path in (ROOT / package).rglob("*.py"):
        tree = ast.parse(path.read_text("utf-8"))
        # At the top; one within a function or `try` has a way around it.
        for node in tree.body:
            names = [each.name for each in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) else []
            assert not ONLY_UNIX & {*names}, path
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and getattr(node.value, "id", None) == "os":
                assert node.attr not in ONLY_UNIX_OF_OS, f"{path}:{node.lineno}"
