"""Tests of `cbsn.images.stacks.units`."""

import pytest

from cbsn.images.stacks.stack import Spacing
from cbsn.images.stacks.units import unit_name, unit_symbol


@pytest.mark.parametrize(
    ("text", "name"),
    [
        *(
            (text, "micrometer")
            for text in ("um", "µm", "μm", "\\u00B5m", "micron", "microns", "Micrometre", " UM ")
        ),
        *((text, "second") for text in ("s", "sec", "second", "seconds")),
        *{"us": "microsecond", "nm": "nanometer", "Mm": "megameter", "mm": "millimeter"}.items(),
        *{"Å": "angstrom", "in": "inch", "inches": "inch", "h": "hour", "min": "minute"}.items(),
        *{"": "", "px": "px", "unum": "unum", "furlong": "furlong"}.items(),
    ],
)
def test_units_have_one_name(text, name):
    assert unit_name(text) == name
    assert unit_name(name) == name
    assert Spacing(1.0, text).unit == name


def test_symbols_lead_back_to_the_name():
    names = ("micrometer", "nanosecond", "angstrom", "foot", "day")
    assert [unit_name(unit_symbol(name)) for name in names] == [*names]
    assert unit_symbol("furlong") is None
