"""Which image formats are read, how each is recognised, and advice for those that are not.

The content decides, not the name. To list a large folder without opening every file, a file whose suffix is one of
`SUFFIXES` counts as an image until it is read; any other is opened, and recognised by its first bytes.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from libraries.base.console import counted

HEAD = 512  # bytes by which a file is recognised


class Format(NamedTuple):
    """A format that is read.

    Attributes:
        name: as Pillow calls it.
        suffixes: of its files; a new file gets the first one.
        media_type: of its files.
        is_shown_by_browsers: whether every browser draws it.
        starts: whether a file that begins with these bytes is of this format.
    """

    name: str
    suffixes: tuple[str, ...]
    media_type: str
    is_shown_by_browsers: bool
    starts: Callable[[bytes], bool]


class Foreign(NamedTuple):
    """A kind of file that contains pictures, or may be mistaken for one, and is not read.

    Attributes:
        name: in the singular; the plural has an s.
        advice: what to do with it.
        suffixes: by which it is recognised if its content does not tell.
        starts: whether a file that begins with these bytes is of this kind.
    """

    name: str
    advice: str
    suffixes: tuple[str, ...]
    starts: Callable[[bytes], bool]

    def of_one(self) -> str:
        """The message about one file."""
        article = "an" if self.name.startswith(("i", "H", "SVG", "Open", "archive")) else "a"
        return f"is {article} {self.name}, which is not read: {self.advice}"

    def not_read(self) -> "NotRead":
        """The reason under which such files are counted."""
        return NotRead(self.name, f"(not read: {self.advice})", is_loss=True)


def _begins(*magic: bytes) -> Callable[[bytes], bool]:
    return lambda head: head.startswith(magic)


def _brands(head: bytes) -> list[bytes]:
    """The brands of a file made of boxes (ISO/IEC 14496-12, 'ftyp'), the major one first; [] for other files."""
    if head[4:8] != b"ftyp":
        return []
    length = min(int.from_bytes(head[:4], "big"), len(head))
    return [head[8:12], *(head[at : at + 4] for at in range(16, length - 3, 4))]


_AVIF, _HEVC = {b"avif", b"avis"}, {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"}


def _in_boxes(family: set[bytes], *, others: set[bytes]) -> Callable[[bytes], bool]:
    """Whether the major brand is of this family; or is neutral, and the first brand of any family is of this one."""

    def starts(head: bytes) -> bool:
        brands = _brands(head)
        if not brands or brands[0] not in family | {b"mif1", b"msf1", b"miaf"}:
            return False
        return next((brand in family for brand in brands if brand in family | others), False)

    return starts


def _is_video(head: bytes) -> bool:
    is_avi = head[:4] == b"RIFF" and head[8:12] == b"AVI "
    return is_avi or bool(_brands(head)) or head[4:8] in (b"moov", b"mdat", b"wide") or head[:4] == b"\x1aE\xdf\xa3"


_NETPBM = re.compile(rb"P([1-6]|f)[\s#]")
_BMP = re.compile(rb"BM.{8}.{4}[\x0c-\x80]\0\0\0", re.DOTALL)  # the length of the second header follows the offset
_SVG = re.compile(
    rb"\s*(\xef\xbb\xbf)?\s*(<\?xml[^>]*>\s*)?(<!--.*?-->\s*|<!DOCTYPE svg[^>]*>\s*)*<svg[\s>]", re.DOTALL
)

FORMATS = (
    Format("JPEG", (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"), "image/jpeg", True, _begins(b"\xff\xd8\xff")),
    Format("PNG", (".png", ".apng"), "image/png", True, _begins(b"\x89PNG\r\n\x1a\n")),
    Format("WEBP", (".webp",), "image/webp", True, lambda head: head.startswith(b"RIFF") and head[8:12] == b"WEBP"),
    Format("GIF", (".gif",), "image/gif", True, _begins(b"GIF87a", b"GIF89a")),
    Format("BMP", (".bmp", ".dib"), "image/bmp", True, lambda head: _BMP.match(head) is not None),
    Format("TIFF", (".tif", ".tiff"), "image/tiff", False, _begins(b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")),
    Format("HEIF", (".heic", ".heif", ".hif"), "image/heic", False, _in_boxes(_HEVC, others=_AVIF)),
    Format("AVIF", (".avif",), "image/avif", True, _in_boxes(_AVIF, others=_HEVC)),
    Format(
        "JPEG2000",
        (".jp2", ".j2k", ".jpf", ".jpx", ".j2c", ".jpc"),
        "image/jp2",
        False,
        _begins(b"\0\0\0\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51"),
    ),
    Format(
        "PPM",
        (".ppm", ".pgm", ".pbm", ".pnm", ".pfm"),
        "image/x-portable-anymap",
        False,
        lambda head: _NETPBM.match(head) is not None,
    ),
)
SUFFIXES = frozenset(suffix for format in FORMATS for suffix in format.suffixes)
MEDIA_TYPES = {suffix: format.media_type for format in FORMATS for suffix in format.suffixes}
NAMES = "JPEG, PNG, WebP, GIF, BMP, TIFF, HEIC, AVIF, JPEG 2000 or PPM"

_RAW = Foreign(
    "raw camera file",
    "develop it to JPEG, PNG or TIFF, or take the camera's own JPEG",
    (".cr2", ".cr3", ".nef", ".nrw", ".arw", ".srf", ".sr2", ".dng", ".orf", ".rw2", ".raf", ".pef", ".srw", ".x3f"),
    lambda head: head[8:12] in (b"CR\x02\0", b"crx ") or head.startswith((b"FUJIFILMCCD-RAW", b"IIU\0", b"IIRO")),
)


def _foreign(name: str, advice: str, suffixes: str, *magic: bytes) -> Foreign:
    return Foreign(name, advice, tuple(suffixes.split()), _begins(*magic))


_FOREIGN = (
    _RAW,
    Foreign("SVG drawing", "export it as PNG", (".svg", ".svgz"), lambda head: _SVG.match(head) is not None),
    Foreign("DICOM image", "export it as PNG or TIFF", (".dcm", ".dicom"), lambda head: head[128:132] == b"DICM"),
    _foreign("JPEG XL image", "export it as JPEG or PNG", ".jxl", b"\xff\x0a", b"\0\0\0\x0cJXL \r\n\x87\n"),
    _foreign("Photoshop document", "export it as PNG or TIFF", ".psd .psb", b"8BPS"),
    _foreign("PDF document", "export its pages as PNG or TIFF", ".pdf", b"%PDF"),
    _foreign("PostScript document", "export it as PNG", ".eps .ps .ai", b"%!PS", b"\xc5\xd0\xd3\xc6"),
    _foreign("FITS image", "export it as TIFF", ".fits .fit .fts", b"SIMPLE  ="),
    _foreign("OpenEXR image", "export it as PNG or TIFF", ".exr", b"\x76\x2f\x31\x01"),
    _foreign("Radiance image", "export it as PNG or TIFF", ".hdr", b"#?RADIANCE", b"#?RGBE"),
    _foreign("GIMP document", "export it as PNG or TIFF", ".xcf", b"gimp xcf"),
    _foreign("Targa image", "export it as PNG", ".tga", *(b"\0\0" + kind + bytes(5) for kind in (b"\2", b"\3", b"\n"))),
    _foreign("icon", "export it as PNG", ".ico .icns .cur", b"\0\0\1\0", b"\0\0\2\0", b"icns"),
    _foreign("DirectDraw texture", "export it as PNG", ".dds", b"DDS "),
    _foreign("NumPy array", "save it as PNG or TIFF", ".npy .npz", b"\x93NUMPY"),
    _foreign("HDF5 or MATLAB file", "save its images as PNG or TIFF", ".h5 .hdf5 .mat", b"\x89HDF", b"MATLAB"),
    _foreign(
        *("archive", "unpack it", ".zip .7z .rar .tar .gz .tgz .bz2 .xz"),
        *(b"PK\3\4", b"7z\xbc\xaf", b"Rar!", b"\x1f\x8b", b"BZh", b"\xfd7zXZ"),
    ),
    Foreign(
        "video",
        "save some of its frames as JPEG or PNG",
        (".mp4", ".mov", ".m4v", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv"),
        _is_video,
    ),
)

# Never opened to check whether they are images: data sets may have tens of thousands of them.
_PLAINLY_OTHER = frozenset(
    {".txt", ".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".xml", ".yaml", ".yml", ".toml", ".ini", ".md", ".rst"}
    | {".html", ".htm", ".css", ".js", ".log", ".py", ".ipynb", ".parquet", ".xlsx", ".docx", ".db", ".sqlite", ".pt"}
)


def recognise(head: bytes) -> Format | Foreign | None:
    """The kind of a file by its first `HEAD` bytes, or all of a shorter one; None for anything unknown."""
    return next((kind for kind in (_RAW, *FORMATS, *_FOREIGN) if kind.starts(head)), None)


def kind_of(path: Path) -> Format | Foreign | None:
    """The kind of a file, by its suffix if that is one of `SUFFIXES`, else by its first bytes; None if unknown.

    If a file has an image suffix but is not an image, this is noticed when it is read.
    """
    name = path.name
    if not is_told_by_content(name):
        return kind_by_name(name)
    try:
        if not path.is_file():  # reading a pipe would block
            return kind_by_name(name)
        with path.open("rb") as file:
            return kind_by_content(name, file.read(HEAD))
    except (OSError, ValueError):
        return kind_by_name(name)


def is_told_by_content(name: str) -> bool:
    """Whether a file of this name has to be opened to know its kind."""
    suffix = suffix_of(name)
    return suffix not in _IMAGES and suffix not in _PLAINLY_OTHER


def kind_by_name(name: str) -> Format | Foreign | None:
    """The kind of a file, by its suffix alone; None if unknown."""
    suffix = suffix_of(name)
    return _IMAGES.get(suffix) or _NAMED.get(suffix)


def kind_by_content(name: str, head: bytes) -> Format | Foreign | None:
    """The kind of a file whose suffix is not an image's, by its first `HEAD` bytes; None if unknown."""
    named, seen = _NAMED.get(suffix_of(name)), recognise(head)
    is_raw = named is _RAW and isinstance(seen, Format) and seen.name == "TIFF"  # most raw files look like TIFF
    return named if seen is None or is_raw else seen


def foreign_called(name: str) -> Foreign | None:
    """The kind of files that are not read with this name; None if there is none."""
    return next((kind for kind in _FOREIGN if kind.name == name), None)


class NotRead(NamedTuple):
    """Why a file is not read as an image.

    Attributes:
        name: of its kind, in the singular; the plural has an s.
        reason: follows the name in messages.
        is_loss: whether a user would consider it an image.
    """

    name: str
    reason: str
    is_loss: bool

    def describe(self, count: int) -> str:
        """The message about `count` files."""
        reason = self.reason
        if count > 1:
            reason = re.sub(r"\bit\b", "them", re.sub(r"\bits\b", "their", reason))
        return f"{counted(count, self.name)} {reason}"


def why_not_read(path: Path, kind: Foreign | None) -> NotRead:
    """The reason why a file is not read."""
    if path.is_symlink() and not path.exists():
        return NotRead("broken link", "(fix it, or remove it)", is_loss=False)
    return why_not_of_name(path.name, kind)


def why_not_of_name(name: str, kind: Foreign | None) -> NotRead:
    """The reason why a file is not read, by its name and its kind."""
    if kind is not None:
        return kind.not_read()
    suffix, reason = suffix_of(name), "(not an image format that is read)"
    return (
        NotRead(f"{suffix} file", reason, is_loss=False)
        if suffix
        else NotRead("file", f"without a suffix {reason}", is_loss=False)
    )


def suffix_of(name: str) -> str:
    """The suffix of a file name, in lower case and with its dot, also if it is the whole name; '' if there is none."""
    return "." + name.rpartition(".")[2].lower() if "." in name else ""


_IMAGES = {suffix: format for format in FORMATS for suffix in format.suffixes}
_NAMED = {suffix: kind for kind in _FOREIGN for suffix in kind.suffixes}
