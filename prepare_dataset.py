"""Cuts noisy pictures into the patches that training reads. See `--help`."""

from cbsn.cli.prepare import command

if __name__ == "__main__":
    command()
