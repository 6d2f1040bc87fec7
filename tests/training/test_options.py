from pathlib import Path

import pytest

from cbsn.errors import LARGEST, ConfigError
from cbsn.noise.synthetic import Noise
from cbsn.recipes import RANGES
from cbsn.training.options import SETTINGS, RunOptions, parse_settings


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "a/b"}, "--name"),
        ({"name": ".."}, "--name"),
        ({"ema": 1.0}, "--ema"),
        ({"val_noisy": "n"}, "give --val_clean along with --val_noisy"),
        ({"val_clean": "n"}, "give --val_noisy along with --val_clean"),
        ({"val_images": 2}, "pairs of --val_clean.*Received: --val_images 2"),
        ({"noise": Noise("gaussian", (5, 5)), "second_shots": "s"}, "--second_shots s"),
        ({"teacher": ["a", "b"], "second_shots": "s"}, "--teacher a b --second_shots s"),
        ({"own_noise": (1, 1)}, "of a --teacher.*Received: no --teacher"),
        (
            {"own_noise": (1, 1), "teacher": ["a"], "noise": Noise("gaussian", (5, 5))},
            "in place of any other noise. Received: --noise: gaussian noise, σ 5",
        ),
        ({"teacher_holes": [3, 5]}, "of a --teacher.*Received: --teacher_holes 3 5"),
        (
            {"teacher": ["a"], "teacher_holes": [129]},
            "holes must be odd and at most 127.*holes 129",
        ),
        (
            {"teacher": ["a"], "teacher_holes": [3, 4]},
            "^--teacher_holes must be odd.*none.*holes 4",
        ),
        ({"targets": "one", "teacher": ["a"], "teacher_holes": [3]}, "one draws one of several"),
        ({"targets": "all"}, "--targets is mean or one. Received: --targets all"),
        ({"rounds": 0}, "--rounds must be at least 1.*0"),
        ({"rounds": 101}, "--rounds must be at most 100.*101"),
        ({"name": "\udcff"}, "not UTF-8"),
        ({"seed": -1}, "--seed"),
        ({"max_bad_steps": 0}, "--max_bad_steps"),
        ({"save_every": -5}, "--save_every"),
        ({"hold_out": 0.6}, "--hold_out is a share.*Received: --hold_out 0.6"),
    ],
)
def test_bad_options_name_the_flag(change, message):
    with pytest.raises(ConfigError, match=message):
        RunOptions(**{"name": "a", "dataset": "d", **change})


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        *(("steps", "a"), ("learning_rate", "fast"), ("batch_size", "4"), ("lmbda", [1])),
        *(("seed", "x"), ("seed", 1.5), ("rounds", "2"), ("epochs", None), ("val_every", 1.5)),
        *(("ema", "x"), ("ema", True), ("hold_out", "x"), ("hole", "3"), ("white", "x")),
        *(("precision", 3), ("repair", 3), ("normalize", (1, 2)), ("nan", 3), ("name", 3)),
        *(("dataset", 3), ("checkpoints", 3), ("teacher", 3), ("teacher", [3])),
        *(("teacher_holes", 2.5), ("noise", 3), ("noise_sigma", [1])),
    ],
)
def test_values_of_another_type_are_named(flag, value):
    with pytest.raises(ConfigError, match=rf"\b{flag}\b.*Received: .*"):
        parse_settings({"name": "a", "dataset": "d", flag: value})


@pytest.mark.parametrize(("given", "holes"), [(0, [0]), ((1, 3), [1, 3]), (None, []), ((), [])])
def test_one_value_may_be_given_by_itself(given, holes):
    values = {"name": "a", "dataset": "d", "teacher": "t", "teacher_holes": given}
    _, options = parse_settings(values)
    assert (options.teacher, options.teacher_holes) == (["t"], holes)
    _, options = parse_settings({**values, "teacher": [Path("t"), "u"]})
    assert options.teacher == ["t", "u"]


def test_holes_are_told_by_the_names_of_their_flags():
    for flag, value in (("hole", 0), ("hole", 4), ("denoise_hole", "3")):
        with pytest.raises(ConfigError, match=f"^--{flag} must be odd.*Received: --{flag} {value}"):
            parse_settings({"name": "a", "dataset": "d", flag: value})


def test_intervals_are_the_authors_in_proportion():
    options = RunOptions(name="a", dataset="d")
    assert options.intervals(500_000) == (1000, 10_000, 10_000)
    assert options.intervals(50_000) == (100, 1000, 1000)
    assert options.intervals(100) == (20, 200, 200)
    given = RunOptions(name="a", dataset="d", print_every=1, val_every=2, save_every=3)
    assert given.intervals(100) == (1, 2, 3)


@pytest.mark.parametrize(
    "flag", [flag for flag, (_, least) in SETTINGS.items() if least is not None]
)
def test_too_large_numbers_name_the_flag(flag):
    setting, _ = SETTINGS[flag]
    most = RANGES.get(setting, (0, LARGEST))[1]
    with pytest.raises(
        ConfigError, match=rf"^--{flag} must be at most {most}\. Received: --{flag} "
    ):
        parse_settings({"name": "a", "dataset": "b", flag: most + 1})
