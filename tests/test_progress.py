import logging

import pytest

from cbsn import progress
from tests.cases import slow_except


def test_lines_are_printed_where_they_are_shown(capsys):
    progress.say("one")
    progress.say_fault("two")
    with progress.shown():  # in the shown block of every test
        progress.say("three")
    assert capsys.readouterr() == ("one\nthree\n", "two\n")


def test_nothing_is_printed_by_the_library(run_python):
    result = run_python(
        """
        from cbsn import progress

        progress.say("one")
        progress.say_fault("two")
        for _ in progress.progress_bar(range(3)):
            pass
        """
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def test_lines_are_logged():
    found = []
    handler = logging.Handler()
    handler.emit = lambda record: found.append((record.levelname, record.getMessage()))
    progress.LOGGER.addHandler(handler)
    progress.say("100 %s")
    progress.say_fault("broken")
    progress.LOGGER.removeHandler(handler)
    assert found == [("INFO", "100 %s"), ("WARNING", "broken")]


@pytest.mark.parametrize("alone", slow_except((True, False), True))
@pytest.mark.parametrize("collects", slow_except((True, False), True))
def test_the_import_of_tensorflow_leaves_python_as_it_was(run_python, alone, collects):
    """A command's own process may keep objects for good, and spares what only Keras may use."""
    result = run_python(
        f"""
        import gc, importlib.util, sys
        from cbsn.progress import import_tensorflow

        if not {collects}:
            gc.disable()
        before = gc.get_freeze_count()
        import_tensorflow(alone={alone})
        assert gc.isenabled() == {collects}
        assert (gc.get_freeze_count() > before) == {alone}
        assert "tensorflow" in sys.modules
        for name in ("matplotlib.pyplot", "pandas", "jax", "IPython", "scipy.sparse"):
            assert not {alone} or name.partition(".")[0] not in sys.modules
            if importlib.util.find_spec(name):
                importlib.import_module(name)
        """
    )
    assert result.returncode == 0, result.stderr


def test_what_was_set_before_is_set_after():
    logger = progress.LOGGER
    level, handlers = logger.level, [*logger.handlers]
    with progress.shown(), progress.shown():
        assert progress.is_shown()
    assert (logger.level, logger.handlers) == (level, handlers)
