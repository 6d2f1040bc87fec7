"""Shows a page to denoise pictures on. See `--help`."""

import argparse
import os

from cbsn.app.options import PORT, AppOptions
from cbsn.cli.flags import MODEL, add_computing, add_gpu, add_model
from cbsn.cli.parser import Parser, new_parser
from cbsn.errors import ConfigError
from cbsn.inference.options import DenoiseOptions


def main(flags: argparse.Namespace) -> None:
    """Shows the page until it is stopped."""
    try:
        from cbsn.app.server import serve
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in ("starlette", "uvicorn"):
            raise
        raise ConfigError(
            f"The page needs {missing}: install the extra app, pip install 'cbsn[app]'."
        ) from None
    given = vars(flags)
    given["token"] = given["token"] or os.environ.get("CBSN_TOKEN") or None
    model = given.pop("model_path")
    serve(AppOptions(denoising=DenoiseOptions.pop(given), model=model, **given))


def make_parser() -> Parser:
    """Returns the parser of the flags."""
    parser = new_parser(
        "Shows a page to denoise pictures on, in a browser. They stay on the computer where this "
        "command runs, and their copies are deleted when it ends.",
        common=("host", "port", "browser", "model_path", "gpu"),
        examples="""
  cbsn app                                            # a page for this computer alone
  cbsn app --host 0.0.0.0                             # for others, too; they need the token
  cbsn app --model checkpoints/holiday --no-browser
""",
    )
    defaults = AppOptions()
    add = parser.add_argument
    what = (
        "address to listen at; 127.0.0.1: this computer alone; 0.0.0.0: all, and the page then "
        "needs a token"
    )
    add("--host", default=defaults.host, metavar="H", help=what)
    what = f"port to listen at; 0: any (default: {PORT}, or any other if it is taken)"
    add("--port", type=int, metavar="N", help=what)
    what = "open the page in a browser, where there is a desktop"
    add("--browser", action=argparse.BooleanOptionalAction, default=True, help=what)
    add_model(parser, f"{MODEL} (default: those that ship, by the quality chosen on the page)")
    what = (
        "opens the page, 16 or more characters; better in the environment variable CBSN_TOKEN, as "
        "others can see flags (default: made up, if others can reach the page)"
    )
    add("--token", metavar="T", help=what)
    what = "largest file that the page takes, in megabytes"
    add("--max_file_mb", type=float, default=defaults.max_file_mb, metavar="MB", help=what)
    what = "most room on the disk for the files of all users together, in gigabytes"
    add("--max_disk_gb", type=float, default=defaults.max_disk_gb, metavar="GB", help=what)
    what = "largest picture in megapixels"
    add("--max_megapixels", type=float, default=defaults.max_megapixels, metavar="N", help=what)
    what = "minutes after which the files of a user are deleted whose page is closed"
    add("--idle_minutes", type=float, default=defaults.idle_minutes, metavar="N", help=what)
    add_computing(parser)
    add_gpu(parser)
    return parser
