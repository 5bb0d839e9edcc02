"""How much memory it takes to decode an image, by its header."""

from libraries.data.decoding import Header

# Bytes per pixel, at most. Pillow keeps a picture of several channels in 4 bytes, whatever their number.
_STORED = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16L": 2, "I;16B": 2}  # of all other modes 4
_GRAY = ("1", "I", "F", "I;16", "I;16L", "I;16B")  # become gray, 1 byte; most others become RGB
_CHANNELS = {"RGB": 3, "YCbCr": 3, "LAB": 3, "RGBA": 4, "CMYK": 4, "LA": 2}  # of all other modes 1
# What decoders take beside the picture, as measured: GIF and WebP whole frames, JPEG 2000 several times 4 bytes for
# each channel. Of a progressive JPEG all coefficients are kept, and of a TIFF a strip, which may be all of it.
_DECODER = {"PNG": 0, "BMP": 0, "GIF": 4, "WEBP": 14}
_OTHER_DECODERS = 24
_FIXED = 8 * 2**20  # whatever the size: the parts in which pictures are converted, a decoder's tables
_RGB = 3  # uint8 [H, W, 3]


def decoded_bytes(header: Header, *, in_full: bool = False) -> int:
    """Bytes that `images.load_bytes` takes at most for an image with this header, besides twice the file's length.

    What a header does not tell is taken to be at its worst: that a JPEG is decoded at full scale, and is progressive.

    Args:
        in_full: what `images.decode` takes, which gives all pixels.
    """
    stored, eight_bits = _STORED.get(header.mode, 4), 1 if header.mode in _GRAY else 4
    decoder = _decoder(header)
    deep = 4 if header.format in ("PNG", "TIFF") and header.mode in ("RGB", "RGBA") else 0  # lower bytes of 16 bits
    steps = (stored + deep + decoder, stored + eight_bits, 2 * eight_bits + _RGB if in_full else 0)
    return max(steps) * header.width * header.height + _FIXED


def _decoder(header: Header) -> int:
    """Bytes per pixel that a decoder takes beside the picture."""
    channels = _CHANNELS.get(header.mode, 1)
    if header.format in ("JPEG", "MPO"):
        return 2 * channels  # a coefficient has 2 bytes
    if header.format == "TIFF":
        return 4 if header.mode in ("I", "F") else 2 * channels
    return _DECODER.get(header.format, _OTHER_DECODERS)
