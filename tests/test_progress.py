import logging

from cbsn import progress


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


def test_what_was_set_before_is_set_after():
    logger = progress.LOGGER
    level, handlers = logger.level, [*logger.handlers]
    with progress.shown(), progress.shown():
        assert progress.is_shown()
    assert (logger.level, logger.handlers) == (level, handlers)
