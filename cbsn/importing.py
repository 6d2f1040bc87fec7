"""Imports TensorFlow and Keras, quietly, and for commands in less time than `import` takes."""

import ast
import contextlib
import functools
import gc
import importlib
import os
import re
import sys
import typing
from collections.abc import Iterator, Sequence
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import ModuleType
from typing import Any

from cbsn.files import captured_stderr

# The modules that tf.nn, … really are.
_PUBLIC = re.compile(r"tensorflow\._api\.v2\.|keras\.(?!src\b)")
_ONLY_FOR_OTHERS = ("matplotlib", "pandas", "IPython", "scipy", "requests")


def import_tensorflow(*, alone: bool = False) -> None:
    """Imports Keras, and TensorFlow, without start-up chatter, unless a log level was asked for.

    `alone` is for commands, whose process does nothing else: it saves some of their start.
    """
    if "keras" in sys.modules:
        return
    quiet = "TF_CPP_MIN_LOG_LEVEL" not in os.environ and sys.stderr is not None
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    # TensorFlow writes some lines straight to the descriptor, before any log level applies.
    with captured_stderr() if quiet else contextlib.nullcontext(), _imported_at_once(alone):
        if alone and os.environ.get("KERAS_BACKEND", "tensorflow") == "tensorflow":
            with hidden("jax"), contextlib.suppress(ImportError):
                # It would import JAX, if that is there, to convert its models to LiteRT.
                import tensorflow as tf
        import keras

        if keras.backend.backend() == "tensorflow":
            import tensorflow as tf

            tf.config.list_physical_devices()


@contextlib.contextmanager
def _imported_at_once(alone: bool) -> Iterator[None]:
    """Spares imports what takes up to half of their time.

    The garbage collector would search the hundreds of thousands of objects again and again, all of
    which stay. And if they are there, Keras imports Matplotlib, pandas, IPython and requests, for
    plots, tables, notebooks and reports to a server, and TensorFlow SciPy, for sparse arrays.
    """
    collects = gc.isenabled()
    gc.disable()
    try:
        with (
            hidden(*_ONLY_FOR_OTHERS if alone else ()),
            _types_compiled_once(),
            _lazily() if alone else contextlib.nullcontext(),
        ):
            yield
    finally:
        if collects:
            gc.enable()
        if alone:
            gc.freeze()  # nor is it worth searching them later


@contextlib.contextmanager
def _types_compiled_once() -> Iterator[None]:
    """Lets `typing` compile each type that is named by a text once.

    The signatures of TensorFlow's operations name a hundred types 18,000 times.
    """
    vars(typing)["compile"] = functools.cache(compile)  # where a module looks before the builtins
    try:
        yield
    finally:
        del vars(typing)["compile"]


@contextlib.contextmanager
def hidden(*names: str) -> Iterator[None]:
    """Makes modules look as if they were not installed, to what is imported meanwhile."""
    before = {name: sys.modules.get(name) for name in names}
    sys.modules.update(dict.fromkeys(names))  # type: ignore[arg-type]
    try:
        yield
    finally:
        for name, module in before.items():
            del sys.modules[name]
            if module:
                sys.modules[name] = module


@contextlib.contextmanager
def _lazily(modules: re.Pattern[str] = _PUBLIC) -> Iterator[None]:
    """Lets modules that only gather names from others import each name when it is first used.

    The public modules of TensorFlow and Keras are of this kind, and a command needs little of what
    they name: with `tf.nn` alone comes the Keras of TensorFlow 1. (`importlib.util.LazyLoader`
    would execute a whole module once anything looks at one of its attributes.)

    Args:
        modules: matches the beginnings of the modules' names.
    """
    finder = _Finder(modules)
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)


class _Finder:
    """Finds modules whose names begin as those of a pattern, and has `_Loader` load them."""

    def __init__(self, modules: re.Pattern[str]) -> None:
        self._modules = modules

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if not self._modules.match(name):
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec and type(spec.loader) is SourceFileLoader:
            spec.loader = _Loader(name, spec.loader.path)
        return spec


class _Loader(SourceFileLoader):
    """Loads a module that only gathers names as a `_LazyModule`, and any other as usual."""

    def exec_module(self, module: ModuleType) -> None:
        _import_twin(self.name)
        lines = ast.parse(self.get_data(self.path)).body
        if not all(map(_only_gathers_names, lines)):
            super().exec_module(module)
            return
        vars(module)["_origins"] = {
            alias.asname or alias.name: (line.module, alias.name)
            for line in lines
            if isinstance(line, ast.ImportFrom)
            for alias in line.names
        }
        module.__class__ = _LazyModule


def _import_twin(name: str) -> None:
    """Imports `tensorflow.lite`, say, which would take the place of `tf.lite` if it came later.

    And what looks into `tensorflow.distribute`, whose place `tf.distribute` takes.
    """
    parent, _, child = name.rpartition("._api.v2.")
    if parent and "." not in child:
        with contextlib.suppress(ModuleNotFoundError):
            importlib.import_module(f"{parent}.{child}")
            if child == "distribute":
                importlib.import_module(f"{parent}.python.distribute.experimental.rpc.rpc_ops")


def _only_gathers_names(line: ast.stmt) -> bool:
    """Returns whether a line is `from … import …`, or a docstring, or imports for private use."""
    match line:
        case ast.ImportFrom(names=names, level=0):
            return all(alias.name != "*" for alias in names)
        case ast.Import(names=names):
            return all((alias.asname or "").startswith("_") for alias in names)
    return isinstance(line, ast.Expr) and isinstance(line.value, ast.Constant)


class _LazyModule(ModuleType):
    """A module that imports each of its names when it is first used."""

    _origins: dict[str, tuple[str, str]]
    """Of each name: the module to import it from, and its name there."""

    def __getattr__(self, name: str) -> Any:
        if name == "__all__":
            return [each for each in self._origins if not each.startswith("_")]
        if name not in self._origins:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        origin, name_there = self._origins[name]
        if origin == self.__name__:  # a module of this package
            value = importlib.import_module(f"{origin}.{name_there}")
        else:
            value = getattr(__import__(origin, fromlist=[name_there]), name_there)
        setattr(self, name, value)
        return value

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *self._origins})
