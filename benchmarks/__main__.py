"""Measures speed and memory; the sides of a comparison alternate. See `--help`."""

import argparse
import importlib
import sys
from pathlib import Path

from benchmarks.settings import SIZES, SUITES, Settings, parse_list
from cbsn.cli.flags import run
from cbsn.cli.parser import new_parser
from cbsn.errors import ConfigError


def make_parser() -> argparse.ArgumentParser:
    """Returns the parser of the flags."""
    flags = new_parser(
        "Measure speed and memory, the sides of a comparison alternating; and how right what "
        "cbsn denoise --uncertainty states is. Everything takes hours on 2 cores; --repeats, "
        "--sizes and --pictures make it shorter."
    )
    flags.prog = "python -m benchmarks"
    # No `choices`: argparse would reject the empty list, which stands for all suites.
    flags.add_argument(
        "suites", nargs="*", help=f"of {', '.join(SUITES)}; none: all (gpu only on one)"
    )
    flags.add_argument("--quick", action="store_true", help="a tiny network: about a minute")
    flags.add_argument("--repeats", type=int, help="measurements of each side (5; quick: 3)")
    flags.add_argument("--sizes", help=f"networks, of {','.join(SIZES)} (full,small; quick: tiny)")
    flags.add_argument("--batches", help="batch sizes of the training step (1,4; quick: 1)")
    flags.add_argument("--pictures", help="HEIGHTxWIDTH,... (256x256,1024x1024; quick: 64x64)")
    flags.add_argument("--sides", help="only these sides: float32,bfloat16,… or cbsn,apbsn,…")
    flags.add_argument(
        "--clean", type=Path, metavar="DIR", help="clean pictures for uncertainty (scikit-image's)"
    )
    flags.add_argument(
        "--huge", action="store_true", help="a picture of 4000x3000 too: minutes for each side"
    )
    flags.add_argument(
        "--memory",
        action=argparse.BooleanOptionalAction,
        help="measure peak memory, in a process for each side (on; quick: off)",
    )
    flags.add_argument("--markdown", action="store_true", help="print Markdown tables")
    flags.add_argument("--json", type=Path, help="write the results to this file, too")
    return flags


def main(flags: argparse.Namespace) -> None:
    """Runs the suites one by one, and writes each case as soon as it is done."""
    import tensorflow as tf

    from benchmarks import report
    from cbsn.devices import has_gpu
    from cbsn.files import write_json
    from cbsn.machine import describe

    if flags.json and not flags.json.parent.is_dir():
        raise ConfigError(f"--json needs a folder that exists. Received: {flags.json}")
    settings = Settings.make(
        quick=flags.quick,
        huge=flags.huge,
        repeats=flags.repeats,
        memory=flags.memory,
        sizes=parse_list("--sizes", flags.sizes),
        batches=parse_list("--batches", flags.batches),
        pictures=parse_list("--pictures", flags.pictures),
        sides=parse_list("--sides", flags.sides),
        clean=flags.clean,
    )
    for name in flags.suites:
        if name not in SUITES:
            raise ConfigError(f"The suites are {', '.join(SUITES)}. Received: {name}")
    # TensorFlow warns of the many graphs that are traced, which is intended here.
    tf.get_logger().setLevel("ERROR")
    layout = report.MARKDOWN if flags.markdown else report.TEXT
    results = {"machine": describe(), "settings": settings.to_dict(), "suites": {}}
    print(report.header(results["machine"], layout), flush=True)
    # The suite `gpu` takes minutes on a CPU and says little there.
    for name in flags.suites or [name for name in SUITES if name != "gpu" or has_gpu()]:
        suite = importlib.import_module(f"benchmarks.{name}")
        cases = results["suites"][name] = []
        for case in suite.run(settings):
            cases.append(case)
            print(f"{name}: {case['case']} done", file=sys.stderr)
            if flags.json:
                write_json(flags.json, results)
        print("\n" + report.table(suite.TITLE, suite.COLUMNS, cases, layout), flush=True)


if __name__ == "__main__":
    run(main, make_parser())
