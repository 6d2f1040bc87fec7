"""Trains a denoiser from noisy pictures. See `--help`."""

from cbsn.cli.train import command

if __name__ == "__main__":
    command()
