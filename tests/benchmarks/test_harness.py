import pytest

from benchmarks.harness import Side, alternate, compare, paired_ratios
from benchmarks.report import MARKDOWN, TEXT, Column, table


def _side(name, seconds, calls, **options):
    """A side whose measurements take these times, one after the other."""
    times = iter(seconds)

    def measure():
        calls.append(name)
        return {"seconds": next(times)}

    return Side(name, measure, **options)


@pytest.mark.parametrize("warm_up", [True, False])
def test_sides_take_turns(warm_up):
    calls = []
    first = 9 if warm_up else 1
    sides = [_side("a", [first, 2, 3], calls), _side("b", [first, 4, 5], calls)]
    samples = alternate(sides, 2, warm_up=warm_up)
    assert calls == ["a", "b"] * (3 if warm_up else 2)
    assert [s["seconds"] for s in samples["b"]] == ([4, 5] if warm_up else [1, 4])


def test_ratios_are_of_pairs():
    # Everything is ten times slower in the second turn; the ratio of the medians would be 10.
    calls = []
    sides = [
        _side("base", [2, 20, 200], calls, base="base"),
        _side("other", [1, 10, 200], calls, base="base", facts={"peak_gib": 1.5}),
    ]
    base, other = compare("case", sides, 3, warm_up=False)["sides"]
    assert other["ratios"] == [2, 2, 1]
    assert other["ratio"] == 2
    assert base["ratio"] == 1
    assert (other["seconds"], other["seconds_min"], other["peak_gib"]) == (10, 1, 1.5)
    assert other["samples"] == [{"seconds": 1}, {"seconds": 10}, {"seconds": 200}]


def test_samples_without_a_partner_are_refused():
    with pytest.raises(ValueError, match="zip"):
        paired_ratios([{"seconds": 1}], [])


CASES = [
    {
        "case": "small",
        "sides": [
            {"side": "a", "base": "a", "seconds": 2.0, "ratio": 1.0},
            {"side": "longer", "base": "a", "seconds": 0.5, "ratio": 4.0, "gflop": 12.0},
        ],
    }
]
COLUMNS = [
    Column("seconds", "median s"),
    Column("ratio", "times as fast", ".2f"),
    Column("gflop", "GFLOP"),
    Column("peak_gib", "never measured"),
]


def test_text_is_aligned():
    assert table("Title", COLUMNS, CASES, TEXT).splitlines() == [
        "Title",
        "case   side    median s  times as fast  GFLOP",
        "---------------------------------------------",
        "small  a              2           base",
        "       longer       0.5           4.00     12",
    ]


def test_markdown():
    assert table("Title", COLUMNS, CASES, MARKDOWN).splitlines()[2:] == [
        "| case  | side   | median s | times as fast | GFLOP |",
        "| ----- | ------ | -------: | ------------: | ----: |",
        "| small | a      |        2 |          base |       |",
        "| small | longer |      0.5 |          4.00 |    12 |",
    ]
