"""The options of `cbsn app`."""

import dataclasses
import ipaddress

from cbsn.errors import ConfigError, check_number
from cbsn.inference.options import DenoiseOptions

PORT = 8765
"""The port, unless another one is given or this one is taken."""

_SHORTEST = 16  # characters of a token that cannot be guessed


@dataclasses.dataclass(frozen=True)
class AppOptions:
    """Where the page is, who may use it, and how much.

    Args:
        host: str, the address to listen at. Default "127.0.0.1": this computer alone.
        port: int from 0 (any) to 65535. Default None: `PORT`, or another one if it is taken.
        token: str of 16 or more characters, that opens the page. Default None: made up if others
            than this computer can reach the page, else none.
        browser: bool, whether to open the page in a browser. Default True.
        gpu: str, see `cbsn.devices.select_gpus`. Default None.
        model: str, a model in place of those that ship, see `cbsn.load`. Default None.
        denoising: how to denoise; of the strengths and the self-ensemble, the page decides.
        max_file_mb: float > 0, the largest file in megabytes. Default 1000.
        max_disk_gb: float > 0, for the files of all users together, in gigabytes. Default 20.
        max_megapixels: float > 0, the largest picture. Default 250.
        idle_minutes: float > 0, after which the files of a user are deleted whose page is closed.
            Default 30.

    Raises:
        ConfigError: if a value is out of range.
    """

    host: str = "127.0.0.1"
    port: int | None = None
    token: str | None = None
    browser: bool = True
    gpu: str | None = None
    model: str | None = None
    denoising: DenoiseOptions = dataclasses.field(default_factory=DenoiseOptions)
    max_file_mb: float = 1000.0
    max_disk_gb: float = 20.0
    max_megapixels: float = 250.0
    idle_minutes: float = 30.0

    def __post_init__(self):
        if self.port is not None:
            check_number("--port", self.port, 0, 65535)
        for name in ("max_file_mb", "max_disk_gb", "max_megapixels", "idle_minutes"):
            check_number(f"--{name}", getattr(self, name), 0, above=True)
        if self.token is not None and len(self.token) < _SHORTEST:
            raise ConfigError(
                f"--token takes {_SHORTEST} or more characters, so that nobody guesses it; without "
                f"it, one is made up. Received: {len(self.token)} characters"
            )

    @property
    def is_local(self) -> bool:
        """Whether only this computer can reach the page."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False
