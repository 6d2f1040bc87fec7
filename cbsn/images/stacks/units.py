"""Names of units: those of UDUNITS-2, as OME-Zarr has them, and OME's symbols."""

import re

_PREFIXES = {
    **{"Y": "yotta", "Z": "zetta", "E": "exa", "P": "peta", "T": "tera", "G": "giga"},
    **{"M": "mega", "k": "kilo", "h": "hecto", "da": "deca", "": "", "d": "deci", "c": "centi"},
    **{"m": "milli", "µ": "micro", "n": "nano", "p": "pico", "f": "femto", "a": "atto"},
    **{"z": "zepto", "y": "yocto"},
}
_NAMES = {
    **{f"{prefix}m": f"{name}meter" for prefix, name in _PREFIXES.items()},
    **{f"{prefix}s": f"{name}second" for prefix, name in _PREFIXES.items()},
    **{"Å": "angstrom", "in": "inch", "ft": "foot", "yd": "yard", "mi": "mile", "pc": "parsec"},
    **{"min": "minute", "h": "hour", "d": "day", "pixel": "pixel"},
}
_SYMBOLS = {name: symbol for symbol, name in _NAMES.items()}

_ALIASES = {"micron": "micrometer", "sec": "second", "inches": "inch", "feet": "foot"}
_MICRO = re.compile(r"^(?:u|\u03bc|\\u00b5)(?=[ms]$)", re.IGNORECASE)  # as other programs write µ


def unit_name(text: str) -> str:
    """Returns the name of a unit that is given by its name or its symbol; an unknown one as it is.

    Example:
        >>> unit_name("um")
        'micrometer'
    """
    text = text.strip()
    symbol = _MICRO.sub("µ", text)
    for each in (symbol, symbol.lower()):
        if each in _NAMES:
            return _NAMES[each]
    name = text.lower().replace("metre", "meter")
    for each in (name, name.removesuffix("s")):
        if each in _SYMBOLS or each in _ALIASES:
            return _ALIASES.get(each, each)
    return text


def unit_symbol(name: str) -> str | None:
    """Returns OME's symbol of a unit, by the name that `unit_name` returns; None if it has none."""
    return _SYMBOLS.get(name)
