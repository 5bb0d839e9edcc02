"""Names of files, folders and labels: compared in Unicode's normal form C, kept on disk in whatever form they are.

macOS tends to write 'ü' as two characters (form D), keyboards as one (form C). They look alike and are not equal.
"""

import os
import unicodedata
from pathlib import Path


def nfc(text: str) -> str:
    """The text in normal form C, in which names are compared."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)


class OnDisk:
    """Paths inside a folder as they are written on disk; see `on_disk`. Folders are listed once, when first needed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._names: dict[str, dict[str, str]] = {}  # by folder: names that are not ASCII, by their form C

    def __call__(self, path: str) -> str:
        if path.isascii() or os.path.lexists(self._folder / path):
            return path
        found = ""
        for part in path.split("/"):
            if not part.isascii() and not os.path.lexists(self._folder / found / part):
                part = self._listed(found).get(nfc(part), part)
            found = f"{found}/{part}" if found else part
        return found

    def _listed(self, inside: str) -> dict[str, str]:
        if inside not in self._names:
            try:
                names = sorted(entry.name for entry in (self._folder / inside).iterdir())
            except OSError:  # not there yet, or none of our business: whoever opens the path will say so
                names = []
            self._names[inside] = {nfc(name): name for name in names if not name.isascii()}
        return self._names[inside]


def on_disk(folder: Path, path: str) -> str:
    """A path inside a folder, with '/', each part as the file or folder there is written that has the same form C.

    A part that exists exactly so, or that nothing there is equal to, stays as given.
    """
    return OnDisk(folder)(path)
