"""Scores denoisers on noisy pictures. See `--help`."""

from cbsn.cli.evaluate import command

if __name__ == "__main__":
    command()
