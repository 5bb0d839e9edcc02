"""Thumbnails of images, made when they are first shown and stored in one file."""

import io
import logging
import os
import sqlite3
import threading
from pathlib import Path

from PIL import Image

from libraries.base.arrays import Pixels
from libraries.data.class_folders import image_file
from libraries.data.decoding import MAX_PIXELS, max_bytes_for, read
from libraries.data.depth import FULL_RANGE
from libraries.data.images import decode

SIDE = 192  # pixels of the longer side: sharp at 128 on a high-resolution screen

log = logging.getLogger(__name__)


class Thumbnails:
    """The thumbnails of a data set's images. Thread-safe.

    A thumbnail is identified by its image's path, size and modification time, and by the white level. The file may be
    deleted at any time; if it cannot be read or written, thumbnails are made each time.
    """

    def __init__(
        self, images: Path, store: Path, *, white_level: int = FULL_RANGE, max_pixels: int = MAX_PIXELS
    ) -> None:
        """
        Args:
            images: folder that the paths are relative to.
            store: an SQLite file.
            white_level: of the data set.
            max_pixels: larger images are refused.
        """
        self._images = images
        self._white_level, self._max_pixels = white_level, max_pixels
        self._lock = threading.Lock()
        self._store: sqlite3.Connection | None = None
        try:
            store.parent.mkdir(parents=True, exist_ok=True)
            self._store = sqlite3.connect(store, check_same_thread=False, timeout=2)
            self._store.execute("PRAGMA journal_mode=WAL")  # so that another notebook can read while this one writes
            self._store.execute("PRAGMA synchronous=NORMAL")
            self._store.execute(
                "CREATE TABLE IF NOT EXISTS thumbnails (path BLOB PRIMARY KEY, version TEXT, jpeg BLOB)"
            )
        except (sqlite3.Error, OSError) as error:
            self._disable_store(error)

    def get(self, path: str) -> bytes:
        """The thumbnail of the image at `path`, a JPEG of at most `SIDE` pixels in each direction.

        Raises:
            ImageError: it cannot be read or decoded.
        """
        data: bytes | None = None
        file = image_file(self._images, path)
        try:
            status = file.stat()
            version = f"{status.st_size} {status.st_mtime_ns} {SIDE}"
            if self._white_level != FULL_RANGE:
                version += f" {self._white_level}"
        except OSError:
            data = self._read(file)  # raises the error that says why
            version = ""
        if (kept := self._stored(path, version)) is not None:
            return kept
        picture = decode(
            data or self._read(file),
            path=path,
            at_least=SIDE,
            white_level=self._white_level,
            max_pixels=self._max_pixels,
        )
        made = jpeg(picture, SIDE)
        self._write(path, version, made)
        return made

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            if self._store is not None:
                self._store.close()
                self._store = None

    def _read(self, file: Path) -> bytes:
        return read(file, max_bytes=max_bytes_for(self._max_pixels))

    def _stored(self, path: str, version: str) -> bytes | None:
        with self._lock:
            if self._store is None:
                return None
            try:
                query = "SELECT jpeg FROM thumbnails WHERE path = ? AND version = ?"
                row = self._store.execute(query, (os.fsencode(path), version)).fetchone()
            except sqlite3.Error as error:
                self._disable_store(error)
                return None
        return None if row is None else bytes(row[0])

    def _write(self, path: str, version: str, made: bytes) -> None:
        with self._lock:
            if self._store is None:
                return
            try:
                with self._store:
                    self._store.execute("REPLACE INTO thumbnails VALUES (?, ?, ?)", (os.fsencode(path), version, made))
            except sqlite3.Error as error:
                self._disable_store(error)

    def _disable_store(self, error: Exception) -> None:
        log.warning("thumbnails are not stored: %s", error)
        if self._store is not None:
            self._store.close()
            self._store = None


def jpeg(image: Pixels, side: int, *, quality: int = 82) -> bytes:
    """An image, uint8 [H, W, 3], as a JPEG of at most `side` pixels in each direction; never enlarged."""
    picture = Image.fromarray(image)
    picture.thumbnail((side, side), Image.Resampling.BICUBIC, reducing_gap=2.0)
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=quality)
    return file.getvalue()
