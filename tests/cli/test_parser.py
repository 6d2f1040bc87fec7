import pytest

from cbsn.cli.parser import add_input, new_parser


@pytest.fixture
def parser():
    made = new_parser("Does something.", common=("pictures", "batch_size"), examples="\n  cbsn x\n")
    made.prog = "cbsn something"
    add_input(made, "pictures", "pictures to take", "--imagepath")
    made.add_argument("--batch_size", "--batchsize", type=int, default=4, help="how many")
    made.add_argument("--rare", action="store_true", help="seldom needed")
    made.add_argument("--gpu", nargs="?", const="all", help="the GPU")
    return made


@pytest.mark.parametrize(
    "flags",
    [
        ["a", "b"],
        ["--input", "a", "b"],
        ["--imagepath", "a", "b"],
        ["a", "--rare", "b"],
        ["--rare", "a", "b"],
        ["--batch_size", "4", "a", "--rare", "b"],
        ["--gpu", "a", "b"],
        ["--gpu", "0,1", "a", "b"],
        ["a", "--", "b"],
    ],
)
def test_pictures_may_stand_anywhere(parser, flags):
    assert parser.parse_args(flags).pictures == ["a", "b"]


@pytest.mark.parametrize(
    "flags",
    [["a", "--unknown", "8"], ["--unknown", "8", "a"], ["--input", "a", "--unknown", "8"]],
    ids=" ".join,
)
@pytest.mark.parametrize("several", [True, False])
def test_the_value_of_an_unknown_flag_is_not_blamed(several, flags, capsys):
    made = new_parser("Does something.")
    add_input(made, "pictures", "pictures to take", several=several)
    with pytest.raises(SystemExit):
        made.parse_args(flags)
    assert "unrecognized arguments: --unknown" in capsys.readouterr().err


def test_one_folder_is_one(capsys):
    made = new_parser("Does something.")
    add_input(made, "pictures", "pictures to take", several=False)
    for flags in (["a", "b"], ["--input", "a", "b"]):
        with pytest.raises(SystemExit):
            made.parse_args(flags)
        assert "takes one folder, or one glob in quotes. Received: a b" in capsys.readouterr().err


def test_a_gpu_is_no_picture(parser):
    assert parser.parse_args(["--gpu", "photos"]).gpu == "all"
    assert parser.parse_args(["photos", "--gpu", "1"]).gpu == "1"
    assert parser.parse_args(["photos", "--gpu"]).gpu == "all"


@pytest.mark.parametrize("name", ["--batch_size", "--batch-size", "--batchsize", "--batch"])
def test_names_of_a_flag(parser, name):
    assert parser.parse_args(["a", name, "7"]).batch_size == 7
    assert parser.parse_args(["a", f"{name}=7"]).batch_size == 7


def test_help_shows_what_is_common_by_its_first_name(parser):
    text = parser.format_help()
    assert "--batch_size" in text and "(default: 4)" in text and "--help-all" in text
    assert not any(name in text for name in ("--batchsize", "--imagepath", "--rare"))
    assert text.startswith("usage: cbsn something [PICTURES ...] [flags]")
    assert text.endswith("examples:\n  cbsn x\n")


def test_full_help_shows_all_flags_and_their_earlier_names(parser, capsys):
    with pytest.raises(SystemExit) as ended:
        parser.parse_args(["--help-all"])
    text = capsys.readouterr().out
    assert ended.value.code == 0
    assert all(name in text for name in ("--rare", "also --batchsize", "also --imagepath"))


def _error(parser, flags, capsys):
    with pytest.raises(SystemExit) as ended:
        parser.parse_args(flags)
    assert ended.value.code == 2
    return capsys.readouterr().err


def test_mistakes_are_one_line(parser, capsys):
    advice = "See cbsn something --help\n"
    assert _error(parser, ["a", "--colour", "red"], capsys).startswith("error: unrecognized")
    text = "error: unrecognized arguments: --batch_sise; did you mean --batch_size? "
    assert _error(parser, ["a", "--batch_sise"], capsys) == text + advice
    no_pictures = "error: there are no pictures: give a folder, a glob in quotes, or files. "
    assert _error(parser, ["--rare"], capsys) == no_pictures + advice


def test_what_is_unknown_is_named_before_pictures_are_missed(parser, capsys):
    assert "unrecognized arguments: --batch_sise; did you" in _error(
        parser, ["--batch_sise"], capsys
    )
    text = "error: unrecognized arguments: -o.png; write ./ before the name of a file that begins"
    assert _error(parser, ["-o.png"], capsys).startswith(text)


def test_one_picture_where_one_is_taken(capsys):
    parser = new_parser("Does something.")
    add_input(parser, "noisy", "the picture", "--noisy", several=False, required=False)
    assert parser.parse_args(["a"]).noisy == "a"
    assert parser.parse_args(["--noisy", "a"]).noisy == "a"
    assert not hasattr(parser.parse_args([]), "noisy")
    for flags in (["a", "b"], ["a", "b", "c"], ["--noisy", "a", "b"], ["--noisy", "a", "--", "b"]):
        assert "one glob in quotes. Received: a b" in _error(parser, flags, capsys)
