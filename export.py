"""Exports a trained model for servers and other runtimes. See `--help`."""

from cbsn.cli.export import command

if __name__ == "__main__":
    command()
