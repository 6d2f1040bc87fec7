"""Damages files: the same seed gives the same damage.

A mutator takes a `random.Random` and bytes. Those of a format know enough of it to get past its
first checks: they alter a PNG's chunks and mend the checksums.
"""

import copy
import json
import random
import struct
import zlib

NUMBERS = (0, 1, 2, 3, 7, 8, 255, 256, 2**15, 2**16 - 1, 2**16, 2**24, 2**31 - 1, 2**31, 2**32 - 1)
"""Those at which programs err."""


def damaged(chance: random.Random, data: bytes, others: list[bytes]) -> bytes:
    """Damages a file in one to some places; `others` are files to take pieces of."""
    steps = [_flip, _flip, _overwrite, _number, _number, _cut, _insert, _delete, _swap, _splice]
    for _ in range(chance.choice((1, 1, 1, 2, 3, 8))):
        if formats := [each for start, each in _FORMATS if data.startswith(start)]:
            step = chance.choice([*steps, *formats * 8])
        else:
            step = chance.choice(steps)
        data = _splice(chance, data, others) if step is _splice else step(chance, data)
    return data


def cut_off(chance: random.Random, data: bytes) -> bytes:
    """Leaves the end of a file out."""
    return data[: chance.randrange(len(data))]


def cut_off_and_filled(chance: random.Random, data: bytes) -> bytes:
    """Leaves zeros where the end of a file was, as a download does that makes room first."""
    return cut_off(chance, data).ljust(len(data), b"\0")


def _place(chance, data):
    """Half of the time near the start, where headers are."""
    return chance.randrange(min(len(data), chance.choice((64, 512, 2**40, 2**40))) or 1)


def _length(chance):
    return chance.choice((1, 2, 3, 4, 8, 16, 64, 300))


def _flip(chance, data):
    data = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 8))):
        if data:
            data[_place(chance, data)] ^= 1 << chance.randrange(8)
    return bytes(data)


def _overwrite(chance, data):
    place, length = _place(chance, data), _length(chance)
    new = chance.choice((bytes(length), b"\xff" * length, chance.randbytes(length)))
    return data[:place] + new[: len(data) - place] + data[place + length :]


def _number(chance, data):
    place, size = _place(chance, data), chance.choice((1, 2, 4, 8))
    value = chance.choice((*NUMBERS, -1, chance.randrange(2**16), len(data)))
    new = (value % 2 ** (8 * size)).to_bytes(size, chance.choice(("big", "little")))
    return data[:place] + new[: len(data) - place] + data[place + size :]


def _cut(chance, data):
    return data[: chance.randint(0, len(data))]


def _insert(chance, data):
    place, source, length = _place(chance, data), _place(chance, data), _length(chance)
    new = chance.choice((bytes(length), chance.randbytes(length), data[source : source + length]))
    return data[:place] + new + data[place:]


def _delete(chance, data):
    place = _place(chance, data)
    return data[:place] + data[place + _length(chance) :]


def _swap(chance, data):
    first, second = sorted((_place(chance, data), _place(chance, data)))
    length = min(_length(chance), second - first)
    middle, third = first + length, second + length
    return (
        data[:first] + data[second:third] + data[middle:second] + data[first:middle] + data[third:]
    )


def _splice(chance, data, others):
    """The start of one file and the end of another one, or a piece of it in the middle."""
    other = chance.choice(others)
    place, source = _place(chance, data), _place(chance, other)
    if chance.random() < 0.5:
        return data[:place] + other[source:]
    length = _length(chance)
    return data[:place] + other[source : source + length] + data[place + length :]


def png_chunks(data):
    """Kind and content of a PNG's chunks, as far as they go."""
    chunks, place = [], 8
    while place + 8 <= len(data):
        size, kind = struct.unpack(">I4s", data[place : place + 8])
        chunks.append((kind, data[place + 8 : place + 8 + size]))
        place += 12 + size
    return chunks


def png_of(chunks):
    """The PNG of chunks; their checksums are right."""
    parts = [b"\x89PNG\r\n\x1a\n"]
    for kind, content in chunks:
        checksum = zlib.crc32(kind + content)
        parts += [struct.pack(">I", len(content)), kind, content, struct.pack(">I", checksum)]
    return b"".join(parts)


_PNG_KINDS = (
    *(b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"gAMA", b"cHRM", b"sRGB", b"iCCP", b"tEXt"),
    *(b"zTXt", b"iTXt", b"bKGD", b"pHYs", b"sBIT", b"sPLT", b"hIST", b"tIME", b"eXIf", b"acTL"),
    *(b"fcTL", b"fdAT", b"cICP", b"mDCV", b"sCAL", b"pCAL", b"oFFs", b"abcd", b"ABCD"),
)


def _png(chance, data):
    chunks = png_chunks(data)
    if not chunks:
        return data
    index = chance.randrange(len(chunks))
    kind, content = chunks[index]
    what = chance.randrange(7)
    if what == 0:
        chunks[index] = (chance.choice(_PNG_KINDS), content)
    elif what == 1:
        chunks.insert(index, (chance.choice(_PNG_KINDS), chance.randbytes(_length(chance))))
    elif what == 2:
        chunks.insert(index, chance.choice(chunks))
    elif what == 3:
        del chunks[index]
    elif what == 4 and chunks[0][0] == b"IHDR" and len(chunks[0][1]) == 13:
        fields = [*struct.unpack(">IIBBBBB", chunks[0][1])]
        field = chance.randrange(7)
        largest = 2**31 - 1 if field < 2 else 255
        fields[field] = chance.choice((0, 1, 2, 3, 4, 6, 8, 16, 9, 12, 300, 70_000, largest))
        fields[field] = min(fields[field], largest)
        chunks[0] = (b"IHDR", struct.pack(">IIBBBBB", *fields))
    elif what == 5 and kind == b"IDAT":
        try:
            pixels = zlib.decompress(content)
        except zlib.error:
            return data
        step = chance.choice((_flip, _overwrite, _cut, _insert))
        chunks[index] = (kind, zlib.compress(step(chance, pixels), 1))
    elif content:
        step = chance.choice((_flip, _overwrite, _number, _cut, _insert, _delete))
        chunks[index] = (kind, step(chance, content))
    return png_of(chunks)


def tiff_entries(data):
    """Places of the entries in all reachable directories of a TIFF, with their layout."""
    order = "<" if data[:2] == b"II" else ">"
    big = data[2:4] in (b"+\0", b"\0+")
    head, layout = ("Q", f"{order}HHQQ") if big else ("I", f"{order}HHII")
    count_format = f"{order}Q" if big else f"{order}H"
    size = struct.calcsize(f"<{head}")
    found, todo, seen = [], [8 if big else 4], set()
    try:
        while todo and len(found) < 1000:
            (offset,) = struct.unpack_from(order + head, data, todo.pop())
            if offset in seen or not offset:
                continue
            seen.add(offset)
            (count,) = struct.unpack_from(count_format, data, offset)
            first = offset + struct.calcsize(count_format)
            width = struct.calcsize(layout)
            for place in range(first, first + min(count, 200) * width, width):
                code, *_ = struct.unpack_from(layout, data, place)
                found.append(place)
                if code in (330, 34665, 34853, 40965):
                    todo.append(place + width - size)
            todo.append(first + count * width)
    except (struct.error, OverflowError):
        pass
    return [each for each in found if each + struct.calcsize(layout) <= len(data)], layout


_TIFF_CODES = (
    *(254, 256, 257, 258, 259, 262, 266, 270, 273, 274, 277, 278, 279, 280, 281, 282, 284, 296),
    *(305, 317, 320, 322, 323, 324, 325, 330, 338, 339, 340, 341, 347, 530, 532, 700, 33432),
    *(33723, 34665, 34675, 34853, 37724, 40965, 42112, 42113, 50838, 50839, 33550, 33922, 50706),
    *(34664, 34852, 37121, 51123, 65000, 32997, 32998, 65420, 272, 271, 306, 333, 318, 319),
)
_TIFF_VALUES = (*range(10), 16, 32, 64, 128, 32773, 34925, 50000, 50001, 34712, 32946, 34887, 33003)


def _tiff(chance, data):
    places, layout = tiff_entries(data)
    if not places:
        return data
    place = chance.choice(places)
    entry = [*struct.unpack_from(layout, data, place)]
    what = chance.randrange(6)
    most = 2**64 - 1 if layout.endswith("Q") else 2**32 - 1
    if what == 0:
        entry[0] = chance.choice(_TIFF_CODES)
    elif what == 1:
        entry[1] = chance.choice((*range(20), 129, 65535))
    elif what == 2:
        entry[2] = chance.choice((*range(6), entry[2] + 1, entry[2] * 2, *NUMBERS, most))
    elif what == 3:
        entry[3] = chance.choice((*_TIFF_VALUES, *NUMBERS, most, entry[3] + 1, len(data)))
    elif what == 4:  # a short value stands at the left in the field
        size = 4 if layout.endswith("II") else 8
        value = struct.pack(layout[0] + "H", chance.choice(_TIFF_VALUES)).ljust(size, b"\0")
        entry[3] = struct.unpack(layout[0] + layout[-1], value)[0]
    else:
        other = chance.choice(places)
        entry = [entry[0], *struct.unpack_from(layout, data, other)[1:]]
    entry[2], entry[3] = (min(each, most) for each in entry[2:])
    return data[:place] + struct.pack(layout, *entry) + data[place + struct.calcsize(layout) :]


def _jpeg(chance, data):
    """Alters a segment in front of the pixels, and keeps its length right."""
    segments, place = [], 2
    while place + 4 <= len(data) and data[place] == 0xFF and data[place + 1] != 0xDA:
        size = int.from_bytes(data[place + 2 : place + 4], "big")
        segments.append((data[place + 1], data[place + 4 : place + 2 + size]))
        place += 2 + size
    if not segments:
        return data
    index = chance.randrange(len(segments))
    kind, content = segments[index]
    what = chance.randrange(4)
    if what == 0:
        del segments[index]
    elif what == 1:
        segments.insert(index, chance.choice(segments))
    elif what == 2:
        kinds = (0xC0, 0xC1, 0xC2, 0xC3, 0xC4, 0xC9, 0xDB, 0xDD, 0xE0, 0xE1, 0xE2, 0xED, 0xEE, 0xFE)
        segments[index] = (chance.choice(kinds), content)
    else:
        step = chance.choice((_flip, _overwrite, _number, _cut, _insert, _delete))
        segments[index] = (kind, step(chance, content)[:65533])
    parts = (
        bytes((0xFF, kind)) + (2 + len(content)).to_bytes(2, "big") + content
        for kind, content in segments
    )
    return data[:2] + b"".join(parts) + data[place:]


def _boxes(chance, data):
    """Alters a length, a kind or the content of a box of AVIF, JPEG 2000 or JPEG XL."""
    marks = (b"ftyp", b"meta", b"iloc", b"iinf", b"ispe", b"pixi", b"av1C", b"mdat", b"ipma")
    marks += (b"iprp", b"ipco", b"colr", b"ihdr", b"jp2h", b"jp2c", b"jxlc", b"Exif", b"infe")
    places = [place for mark in marks if (place := data.find(mark)) >= 4]
    if not places:
        return data
    place = chance.choice(places)
    if chance.random() < 0.3:
        new = chance.choice((0, 1, 8, 9, 20, *NUMBERS)).to_bytes(4, "big")
        return data[: place - 4] + new + data[place:]
    spot = place + 4 + chance.randrange(24)
    if spot >= len(data):
        return data
    new = chance.choice((b"\0", b"\1", b"\2", b"\x08", b"\x10", b"\x7f", b"\xff"))
    return data[:spot] + new + data[spot + 1 :]


_ODD = (
    *(None, True, False, 0, -1, 1, 0.5, 2**31, 2**62, 2**63, 2**64, 10**30, 1e300, -1e300),
    *(float("nan"), float("inf"), "", "text", "\0", "..", "a/b", "../x", "\ud800", "A" * 3000),
    *([], {}, [[]], [None], {"": 1}, [0], "cbsn", "uint8", "float32", 1e-320, -(10**400)),
)


def json_changed(chance: random.Random, data: bytes) -> bytes:
    """A JSON file with something else in it, anywhere."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return data
    for _ in range(chance.choice((1, 1, 2, 5))):
        value = _json_value(chance, value)
    text = json.dumps(value)
    if chance.random() < 0.05:
        depth = chance.choice((5, 900, 100_000))
        text = text.replace("1", "[" * depth + "]" * depth, 1)
    if chance.random() < 0.05:
        text = text.replace("1", "1" * chance.choice((20, 400, 5000)), 1)
    return text.encode("utf-8", "surrogatepass")


def _json_value(chance, value):
    if isinstance(value, dict | list) and value and chance.random() < 0.85:
        keys = [*value] if isinstance(value, dict) else range(len(value))
        key = chance.choice(keys)
        what = chance.randrange(12)
        if what == 0:
            del value[key]
        elif what == 1 and isinstance(value, list):
            value.append(value[key])
        elif what == 2 and isinstance(value, dict):
            value[chance.choice((*keys, "other", ""))] = value.pop(key)
        else:
            value[key] = _json_value(chance, value[key])
        return value
    if isinstance(value, int | float) and abs(value) < 1e300 and chance.random() < 0.5:
        return chance.choice((value + 1, value - 1, -value, 2 * value, value + 0.5, 1000 * value))
    return copy.deepcopy(chance.choice(_ODD))


_FORMATS = (
    (b"\x89PNG", _png),
    *((start, _tiff) for start in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")),
    (b"\xff\xd8", _jpeg),
    *((start, _boxes) for start in (b"\0\0\0\x0c", b"\0\0\0 ", b"\0\0\0\x1c", b"\0\0\0\x18")),
    (b"{", json_changed),
)
