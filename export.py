"""Exports a trained model for servers and other runtimes. See `--help`."""

from cbsn.__main__ import run_command

if __name__ == "__main__":
    run_command("export")
