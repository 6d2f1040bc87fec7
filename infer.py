"""Denoises pictures, with the model that ships or another one. See `--help`."""

from cbsn.cli.denoise import command

if __name__ == "__main__":
    command()
