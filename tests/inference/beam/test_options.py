import pytest
from apache_beam.options.pipeline_options import DebugOptions, DirectOptions, PipelineOptions

from cbsn.cli.beam import make_parser
from cbsn.errors import ConfigError
from cbsn.inference.beam.job import is_local, parse_beam_flags


def test_what_is_given_counts():
    options = parse_beam_flags(["--direct_num_workers", "3"])
    assert options.view_as(DirectOptions).direct_num_workers == 3
    assert options.view_as(DebugOptions).number_of_worker_harness_threads == 1
    assert is_local(options)
    options = parse_beam_flags(["--number_of_worker_harness_threads=2", "--runner=FlinkRunner"])
    assert options.view_as(DebugOptions).number_of_worker_harness_threads == 2
    assert not is_local(options)


@pytest.mark.parametrize(
    ("flags", "match"),
    [
        (["--foramt", "png"], "Neither this command nor Beam knows --foramt"),
        (["--direct_num_workers", "two"], "--direct_num_workers: invalid int value: 'two'"),
        (["--direct_num_workers", "-5"], "at least 0.*Received: --direct_num_workers -5"),
        (["--direct_num_workers", str(10**30)], "at most 1000"),
        (["a.png", "--direct_num_workers", "2"], "given by --input. Received: 'a.png'"),
    ],
)
def test_unusable_flags_are_refused(flags, match):
    with pytest.raises(ConfigError, match=match):
        parse_beam_flags(flags)


def test_other_runners_may_know_more():
    assert not is_local(parse_beam_flags(["--runner", "PortableRunner", "--foramt", "png"]))


def test_flags_are_the_commands_or_beams():
    own = {flag.lstrip("-") for action in make_parser()._actions for flag in action.option_strings}
    assert "modelpath" in own
    assert not own & PipelineOptions([]).get_all_options().keys()
    required = ["--modelpath", "m", "--input", "a", "b", "--output", "o"]
    flags = make_parser().parse_args([*required, "--runner", "X", "--tile", "32", "--region=r"])
    assert (flags.inputs, flags.tile) == (["a", "b"], "32")
    assert flags.beam_flags == ["--runner", "X", "--region=r"]
