import pytest

from cbsn.app.options import AppOptions
from cbsn.errors import ConfigError


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "localhost", "::1"])
def test_only_this_computer_reaches_it(host):
    assert AppOptions(host=host).is_local


@pytest.mark.parametrize(
    "host", ["0.0.0.0", "::", "192.168.1.7", "example.org", "127.0.0.1.nip.io"]
)
def test_others_reach_it(host):
    assert not AppOptions(host=host).is_local


@pytest.mark.parametrize(
    "changes",
    [
        {"port": -1},
        {"port": 65536},
        {"max_file_mb": 0},
        {"max_disk_gb": float("nan")},
        {"max_megapixels": -5},
        {"idle_minutes": 0},
        {"token": "short"},
    ],
)
def test_values_out_of_range_are_refused(changes):
    with pytest.raises(ConfigError, match=f"--{next(iter(changes))}"):
        AppOptions(**changes)
