"""Checks the boxes of HEIC and AVIF files (ISO/IEC 14496-12 and 23008-12), some of which would take forever to decode.

Such a file may declare that its picture is made of hundreds of others, as phones do, and each of these may be a video
stream with any number of pictures, of which only the first is used.
"""

import struct
from collections.abc import Iterator
from typing import NamedTuple

from libraries.base.errors import PIXEL_LIMIT, ImageError, ImageTooLarge

_MOST_BOXES = 20_000
_MOST_ITEMS = 1_000  # libheif's limit; a picture of 48 megapixels has about 200
_MOST_UNITS = 10_000  # of the streams of all items together
_MOST_PICTURES = {b"hvc1": 1, b"av01": 8}  # in a stream: one; of AV1 up to four layers, each with two headers
_MOST_DEPTH = 4  # of nested pictures

Box = tuple[bytes, int, int]  # kind, where its content begins and ends


class _Item(NamedTuple):
    """One picture, or one piece of metadata, of a file.

    Attributes:
        kind: such as hvc1, av01, grid or Exif.
        area: of its picture, as the file declares it [pixels].
        parts: items that the picture is made of, repeated if used more than once.
        extents: beginning and end of each piece of its bytes.
    """

    kind: bytes
    area: int
    parts: tuple[int, ...]
    extents: tuple[tuple[int, int], ...]


def check_boxes(data: bytes, *, max_pixels: int) -> None:
    """Refuse a file whose picture has too many parts, or whose streams contain more than one picture.

    Raises:
        ImageError: it is such a file, or contains no picture.
    """
    try:
        primary, items = _items(data)
        units = 0
        for item in items.values():
            if item.kind in _MOST_PICTURES:
                units += _check_stream(data, item, at_most=_MOST_UNITS - units)
        if _coded_pixels(primary, items, depth=0) > 2 * max_pixels + 2**22:
            parts = f"parts with more than twice the {max_pixels:,} pixels allowed"
            raise ImageTooLarge(f"is made of {parts}", limit=PIXEL_LIMIT)
    except (struct.error, IndexError, KeyError, RecursionError) as error:
        raise ImageError("is damaged: no picture was found in it") from error


def _boxes(data: bytes, at: int, end: int) -> Iterator[Box]:
    """Yield the boxes between two positions."""
    for _ in range(_MOST_BOXES):
        if at + 8 > end:
            return
        length, kind = struct.unpack_from(">I4s", data, at)
        begin = at + 8
        if length == 1:
            length, begin = struct.unpack_from(">Q", data, at + 8)[0], at + 16
        stop = end if length == 0 else min(end, at + length)
        if stop < begin:
            return
        yield kind, begin, stop
        at = stop
    raise ImageError(f"has more than {_MOST_BOXES:,} boxes")


def _items(data: bytes) -> tuple[int, dict[int, _Item]]:
    """The number of the primary item, which is the file's picture, and all items."""
    meta = next((box for box in _boxes(data, 0, len(data)) if box[0] == b"meta"), None)
    if meta is None:
        raise ImageError("is a HEIC or AVIF file that holds no picture: it is cut off, or a video")
    boxes = {kind: (begin, end) for kind, begin, end in _boxes(data, meta[1] + 4, meta[2])}
    if b"pitm" not in boxes or b"iinf" not in boxes or b"iloc" not in boxes:
        raise ImageError("is a HEIC or AVIF file that holds no picture: it is cut off, or a video")
    begin, _ = boxes[b"pitm"]
    primary = struct.unpack_from(">H" if data[begin] == 0 else ">I", data, begin + 4)[0]
    kinds = _kinds(data, *boxes[b"iinf"])
    areas = _areas(data, *boxes[b"iprp"]) if b"iprp" in boxes else {}
    parts = _parts(data, *boxes[b"iref"]) if b"iref" in boxes else {}
    idat = boxes.get(b"idat", (0, 0))[0]
    extents = _extents(data, *boxes[b"iloc"], idat=idat)
    return primary, {
        number: _Item(kind, areas.get(number, 0), tuple(parts.get(number, ())), tuple(extents.get(number, ())))
        for number, kind in kinds.items()
    }


def _kinds(data: bytes, begin: int, end: int) -> dict[int, bytes]:
    version = data[begin]
    count = struct.unpack_from(">H" if version == 0 else ">I", data, begin + 4)[0]
    if count > _MOST_ITEMS:
        raise ImageError(f"has more than {_MOST_ITEMS:,} parts")
    kinds: dict[int, bytes] = {}
    for kind, at, _ in _boxes(data, begin + (6 if version == 0 else 8), end):
        if kind == b"infe" and data[at] >= 2:
            number, _, name = struct.unpack_from(">HH4s" if data[at] == 2 else ">IH4s", data, at + 4)
            kinds[number] = name
    if len(kinds) > _MOST_ITEMS:
        raise ImageError(f"has more than {_MOST_ITEMS:,} parts")
    return kinds


def _areas(data: bytes, begin: int, end: int) -> dict[int, int]:
    """Width times height of every item [pixels], from its property 'ispe'."""
    sizes: dict[int, int] = {}
    areas: dict[int, int] = {}
    for kind, at, stop in _boxes(data, begin, end):
        if kind == b"ipco":
            for place, (name, inner, _) in enumerate(_boxes(data, at, stop), 1):
                if name == b"ispe":
                    width, height = struct.unpack_from(">II", data, inner + 4)
                    sizes[place] = width * height
                elif name == b"hvcC" and data[inner + 21] & 3 != 3:
                    raise ImageError("has lengths of an unusual size in its stream: save it again")
        elif kind == b"ipma":
            for number, place in _associations(data, at):
                areas[number] = max(areas.get(number, 0), sizes.get(place, 0))
    return areas


def _associations(data: bytes, at: int) -> Iterator[tuple[int, int]]:
    """Yield item numbers with the positions of their properties."""
    version, is_wide = data[at], data[at + 3] & 1
    count = struct.unpack_from(">I", data, at + 4)[0]
    at += 8
    for _ in range(min(count, _MOST_ITEMS)):
        number = struct.unpack_from(">H" if version == 0 else ">I", data, at)[0]
        at += 2 if version == 0 else 4
        properties = data[at]
        at += 1
        for _ in range(properties):
            place = struct.unpack_from(">H", data, at)[0] & 0x7FFF if is_wide else data[at] & 0x7F
            at += 2 if is_wide else 1
            yield number, place


def _parts(data: bytes, begin: int, end: int) -> dict[int, list[int]]:
    """The items that every item is made of, with its transparency."""
    form = ">H" if data[begin] == 0 else ">I"
    size = struct.calcsize(form)
    parts: dict[int, list[int]] = {}
    total = 0
    for kind, at, _ in _boxes(data, begin + 4, end):
        number, count = struct.unpack_from(form + "H", data, at)
        total += count
        if total > 20 * _MOST_ITEMS:
            raise ImageError(f"is made of more than {20 * _MOST_ITEMS:,} parts")
        others = [struct.unpack_from(form, data, at + size + 2 + size * i)[0] for i in range(count)]
        if kind == b"dimg":
            parts.setdefault(number, []).extend(others)
        elif kind == b"auxl":
            for other in others:
                parts.setdefault(other, []).append(number)
    return parts


def _coded_pixels(number: int, items: dict[int, _Item], *, depth: int) -> int:
    """How many pixels have to be decoded for an item."""
    if depth > _MOST_DEPTH:
        raise ImageError(f"has pictures nested deeper than {_MOST_DEPTH}")
    item = items[number]
    if len(item.parts) > _MOST_ITEMS:
        raise ImageError(f"is made of more than {_MOST_ITEMS:,} parts")
    own = item.area if item.kind in _MOST_PICTURES else 0
    counts = {part: item.parts.count(part) for part in set(item.parts)}
    return own + sum(times * _coded_pixels(part, items, depth=depth + 1) for part, times in counts.items())


def _extents(data: bytes, begin: int, end: int, *, idat: int) -> dict[int, list[tuple[int, int]]]:
    """Beginning and end of each piece of every item's bytes."""
    version = data[begin]
    sizes = struct.unpack_from(">BB", data, begin + 4)
    offset_size, length_size, base_size, index_size = sizes[0] >> 4, sizes[0] & 15, sizes[1] >> 4, sizes[1] & 15
    at = begin + 6
    width = 4 if version == 2 else 2
    count = int.from_bytes(data[at : at + width], "big")
    at += width
    by_item: dict[int, list[tuple[int, int]]] = {}
    left = _MOST_BOXES
    for _ in range(min(count, _MOST_ITEMS)):
        number = int.from_bytes(data[at : at + width], "big")
        at += width
        method = data[at + 1] & 15 if version else 0
        at += (2 if version else 0) + 2
        base = int.from_bytes(data[at : at + base_size], "big") + (idat if method == 1 else 0)
        extents = int.from_bytes(data[at + base_size : at + base_size + 2], "big")
        at += base_size + 2
        left -= extents
        if left < 0 or at > end:
            raise ImageError(f"has more than {_MOST_BOXES:,} pieces")
        for _ in range(extents):
            at += index_size if version else 0
            offset = base + int.from_bytes(data[at : at + offset_size], "big")
            at += offset_size
            length = int.from_bytes(data[at : at + length_size], "big")
            at += length_size
            by_item.setdefault(number, []).append((offset, offset + length if length else len(data)))
    return by_item


# Streams


def _check_stream(data: bytes, item: _Item, *, at_most: int) -> int:
    """Check that an item's stream is complete, with no more pictures than allowed; returns how many units it has."""
    extents = item.extents
    if any(end > len(data) for _, end in extents):
        raise ImageError("is truncated: some of its parts are missing")  # libheif would leave them black
    stream = data[slice(*extents[0])] if len(extents) == 1 else b"".join(data[begin:end] for begin, end in extents)
    units = _pictures_of_hevc(stream) if item.kind == b"hvc1" else _pictures_of_av1(stream, most_pixels=2 * item.area)
    count = pictures = 0
    for is_picture in units:
        count += 1
        pictures += is_picture
        if count > at_most or pictures > _MOST_PICTURES[item.kind]:
            raise ImageError("is a video, or made like one: save one of its pictures as JPEG or PNG")
    return count


def _pictures_of_hevc(stream: bytes) -> Iterator[bool]:
    """Whether each unit (ITU-T H.265, 7.3.1) begins a picture; libheif itself checks the picture's size."""
    at = 0
    while at + 7 <= len(stream):
        kind = stream[at + 4] >> 1 & 0x3F
        yield kind < 32 and stream[at + 6] >= 0x80
        at += 4 + int.from_bytes(stream[at : at + 4], "big")


def _pictures_of_av1(stream: bytes, *, most_pixels: int) -> Iterator[bool]:
    """Whether each unit (AV1 bitstream specification, 5.3) is the header of a picture, or a picture."""
    at = 0
    while at < len(stream):
        head = stream[at]
        at += 2 if head & 4 else 1
        length = len(stream) - at
        if head & 2:
            length = shift = 0
            for _ in range(8):
                byte = stream[at]
                at += 1
                length |= (byte & 0x7F) << shift
                shift += 7
                if byte < 0x80:
                    break
        kind = head >> 3 & 15
        if kind == 1 and (pixels := _area_of_av1(stream[at : at + 128])) > most_pixels:
            raise ImageError(f"has {pixels:,} pixels, more than it declares")
        yield kind in (3, 6)
        at += length


def _area_of_av1(sequence: bytes) -> int:
    """Width times height of the largest picture, from a sequence header (AV1 bitstream specification, 5.5)."""
    bits, left = int.from_bytes(sequence, "big"), 8 * len(sequence)

    def take(count: int) -> int:
        nonlocal left
        left -= count
        if left < 0:
            raise IndexError
        return bits >> left & ((1 << count) - 1)

    def skip_variable_length_number() -> None:
        zeros = 0
        while not take(1):
            zeros += 1
        take(zeros)

    take(4)  # profile, still picture
    if take(1):  # the short form
        take(5)
    else:
        delay_bits = has_decoder_model = 0
        if take(1):  # timing
            take(64)
            if take(1):
                skip_variable_length_number()
            has_decoder_model = take(1)
            if has_decoder_model:
                delay_bits = take(5) + 1
                take(42)
        has_display_delay = take(1)
        for _ in range(take(5) + 1):  # operating points
            take(12)
            if take(5) > 7:
                take(1)
            if has_decoder_model and take(1):
                take(2 * delay_bits + 1)
            if has_display_delay and take(1):
                take(4)
    width_bits, height_bits = take(4) + 1, take(4) + 1
    return (take(width_bits) + 1) * (take(height_bits) + 1)
