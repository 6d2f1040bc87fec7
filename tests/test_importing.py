import importlib
import re
import sys

import pytest

from cbsn import importing
from tests.cases import slow_except


@pytest.mark.parametrize("alone", slow_except((True, False), True))
@pytest.mark.parametrize("collects", slow_except((True, False), True))
def test_the_import_of_tensorflow_leaves_python_as_it_was(run_python, alone, collects):
    """A command's own process may keep objects for good, and spares what only Keras may use."""
    result = run_python(
        f"""
        import gc, importlib.util, sys, typing
        from cbsn.importing import import_tensorflow

        if not {collects}:
            gc.disable()
        before, finders = gc.get_freeze_count(), [*sys.meta_path]
        import_tensorflow(alone={alone})
        assert gc.isenabled() == {collects}
        assert (gc.get_freeze_count() > before) == {alone}
        assert not any("cbsn" in type(each).__module__ for each in sys.meta_path)
        assert not hasattr(typing, "compile")
        assert "tensorflow" in sys.modules
        for name in ("matplotlib.pyplot", "pandas", "jax", "IPython", "scipy.sparse", "requests"):
            assert not {alone} or name.partition(".")[0] not in sys.modules
            if importlib.util.find_spec(name):
                importlib.import_module(name)
        """
    )
    assert result.returncode == 0, result.stderr


def test_public_names_are_what_they_are_without_the_command(run_python):
    """A module that imports names on their use has the very objects that its lines import."""
    result = run_python(
        """
        import runpy, sys, types
        from cbsn.importing import import_tensorflow

        import_tensorflow(alone=True)
        import keras
        import tensorflow as tf

        assert type(tf.nn) is not types.ModuleType  # otherwise this test means nothing
        assert tf.keras.layers.Dense is keras.layers.Dense
        seen = set()
        while lazy := {
            name: module
            for name, module in sys.modules.items()
            if type(module).__name__ == "_LazyModule" and name not in seen
        }:
            seen.update(lazy)
            for name, module in lazy.items():
                assert all(hasattr(module, each) for each in dir(module)), name
                expected = runpy.run_path(module.__file__)
                for each, value in expected.items():
                    if not each.startswith("_") or each in ("__internal__", "__operators__"):
                        assert getattr(module, each) is value, (name, each)
        assert {"tensorflow._api.v2.nn", "tensorflow._api.v2.data"} < seen
        assert any(each.startswith("keras.") for each in seen)
        """
    )
    assert result.returncode == 0, result.stderr


def test_no_other_module_takes_the_place_of_a_public_one(run_python):
    """Packages such as `tensorflow.lite` do when they are imported first after `tf.lite` is set."""
    answers = [
        run_python(
            f"""
            import importlib, os, pkgutil, types
            from cbsn.importing import import_tensorflow

            import_tensorflow(alone={alone})
            import keras
            import tensorflow as tf

            for package in (tf, keras):
                for each in pkgutil.iter_modules([os.path.dirname(package.__file__)]):
                    if each.ispkg and each.name != "_api":
                        importlib.import_module(f"{{package.__name__}}.{{each.name}}")
                for name, value in sorted(vars(package).items()):
                    if isinstance(value, types.ModuleType):
                        print(package.__name__, name, value.__name__)
            """
        )
        for alone in (False, True)
    ]
    assert answers[0].stdout.count("_api.v2") > 30, answers[0].stderr
    assert answers[1].stdout == answers[0].stdout, answers[1].stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["tf2onnx", "bioimageio.core", "tensorflow_serving.apis.predict_pb2", "apache_beam"]
)
def test_packages_that_commands_use_can_be_imported_afterwards(run_python, name):
    pytest.importorskip(name.partition(".")[0])
    result = run_python(
        f"""
        import importlib
        from cbsn.importing import import_tensorflow

        import_tensorflow(alone=True)
        importlib.import_module("{name}")
        """
    )
    assert result.returncode == 0, result.stderr


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Returns a function that writes files of a package, `gathered`, which can be imported."""

    def write(files):
        for name, text in files.items():
            path = tmp_path / "gathered" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    monkeypatch.syspath_prepend(tmp_path)
    yield write
    for name in [each for each in sys.modules if each.partition(".")[0] == "gathered"]:
        del sys.modules[name]


def _load(name):
    with importing._lazily(re.compile(r"gathered\.public\b")):
        return importlib.import_module(name)


def test_a_name_is_imported_when_it_is_first_used(write):
    write(
        {
            "__init__.py": "",
            "private.py": "one = [1]",
            "other.py": "raise RuntimeError('imported')",
            "public/__init__.py": '"""What it is."""\nimport sys as _sys\n'
            "from gathered.public import inner\n"
            "from gathered.private import one as first, one\n"
            "from gathered.other import two\n",
            "public/inner.py": "from gathered import private\n",
        }
    )
    public = _load("gathered.public")
    assert "gathered.private" not in sys.modules
    assert public.first is public.one is sys.modules["gathered.private"].one
    assert "first" in vars(public)  # so the second use takes no detour
    assert public.inner is sys.modules["gathered.public.inner"]
    assert public.inner.private is sys.modules["gathered.private"]  # a module, not a name in one
    with pytest.raises(AttributeError, match=r"'gathered\.public' has no attribute 'three'"):
        _ = public.three
    with pytest.raises(RuntimeError, match="imported"):
        _ = public.two
    assert {"first", "inner", "one", "two", "__name__"} < set(dir(public))
    assert public.__all__ == ["inner", "first", "one", "two"]


@pytest.mark.parametrize(
    "line", ["three = 3", "from gathered.private import *", "import gathered.private", "print()"]
)
def test_a_module_that_does_more_is_imported_as_usual(write, line):
    write(
        {
            "__init__.py": "",
            "private.py": "one = [1]",
            "public.py": f"from gathered.private import one\n{line}\n",
        }
    )
    assert "one" in vars(_load("gathered.public"))


def test_other_modules_are_left_to_python(write):
    write(
        {"__init__.py": "", "private.py": "one = [1]", "a.py": "from gathered.private import one"}
    )
    assert "one" in vars(_load("gathered.a"))
    with pytest.raises(ModuleNotFoundError, match=r"gathered\.public"):
        _load("gathered.public")
