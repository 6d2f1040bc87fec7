"""Cuts noisy pictures into the patches that training reads. See `--help`."""

from cbsn.__main__ import run_command

if __name__ == "__main__":
    run_command("prepare")
