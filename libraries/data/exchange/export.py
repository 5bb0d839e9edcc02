"""Exports of a data set: metadata.csv and croissant.json beside the class folders, and tasks for Label Studio.

metadata.csv is read by the Hugging Face loader `imagefolder`; croissant.json is a machine-readable description (ML
Commons, Croissant 1.0). Both are written where people keep their own files: this project recognises its files by their
SHA-256, and never overwrites others.
"""

import csv
import hashlib
import io
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Any

from libraries.base.errors import StorageError
from libraries.base.file_system import nfc, read_regular
from libraries.base.storage import MAX_JSON_BYTES, json_text, read_json, sha256, write_json, write_text
from libraries.base.tables import csv_records, csv_text, protected
from libraries.data.dataset import Example
from libraries.data.exchange import label_studio
from libraries.data.formats import MEDIA_TYPES

METADATA, CROISSANT = "metadata.csv", "croissant.json"
COLUMNS = ("file_name", "label", "split", "group")

_OTHER = "application/octet-stream"  # the media type of a file without an image suffix
_TERMS = (
    *("citeAs", "column", "equivalentProperty", "extract", "field", "fileObject", "fileProperty", "fileSet", "format"),
    *("includes", "isLiveDataset", "jsonPath", "key", "md5", "parentField", "path", "recordSet", "references", "regex"),
    *("repeated", "replace", "samplingRate", "separator", "source", "subField", "transform"),
)
_CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "sc": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "dct": "http://purl.org/dc/terms/",
    "conformsTo": "dct:conformsTo",
    "data": {"@id": "cr:data", "@type": "@json"},
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    **{term: f"cr:{term}" for term in _TERMS},
}  # the context of Croissant 1.0

RECORD, TASKS = "exported.json", "labelStudio"


def describe(examples: Sequence[Example], *, name: str) -> dict[str, str]:
    """The texts of metadata.csv and croissant.json for a data set, by file name."""
    rows = [{"file_name": _named(e.path), "label": e.label, "split": e.split, "group": e.group} for e in examples]
    metadata = csv_text(rows, columns=COLUMNS)
    labels = {e.path: e.label for e in examples}
    return {METADATA: metadata, CROISSANT: json_text(_croissant(labels, name=name, digest=_digest(metadata.encode())))}


def _named(path: str) -> str:
    """A path as a cell that no spreadsheet runs as a formula, and that is still the path."""
    return path if protected(path) == path else f"./{path}"


def is_ours(path: Path) -> bool:
    """Whether this project wrote metadata.csv and croissant.json: they are exactly what `describe` makes.

    croissant.json contains the SHA-256 of metadata.csv, and everything else in it follows from that and from the name.
    """
    try:
        metadata, croissant = (
            read_regular(path.with_name(name), most=MAX_JSON_BYTES) for name in (METADATA, CROISSANT)
        )
        rows = list(csv_records(io.StringIO(metadata.decode(), newline="")))
        labels = {row["file_name"]: row["label"] for row in rows}
        name = json.loads(croissant)["name"]
        return croissant.decode() == json_text(_croissant(labels, name=name, digest=_digest(metadata)))
    except (OSError, ValueError, KeyError, TypeError, RecursionError, csv.Error):
        return False


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _croissant(labels: Mapping[str, str], *, name: str, digest: str) -> dict[str, Any]:
    """The content of croissant.json: metadata.csv, the image files, and a record set for each.

    Args:
        labels: by path.
        digest: SHA-256 of metadata.csv.
    """
    suffixes = sorted({PurePosixPath(path).suffix for path in labels})
    return {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": name,
        "description": f"{len(labels):,} images of {len(set(labels.values())):,} classes",
        "distribution": [
            {
                **{"@type": "cr:FileObject", "@id": METADATA, "name": METADATA, "contentUrl": METADATA},
                **{"encodingFormat": "text/csv", "sha256": digest},
            },
            {
                **{"@type": "cr:FileSet", "@id": "files", "name": "files"},
                "encodingFormat": sorted({MEDIA_TYPES.get(suffix.lower(), _OTHER) for suffix in suffixes}),
                "includes": [f"**/*{suffix}" for suffix in suffixes],
            },
        ],
        "recordSet": _record_sets(labels),
    }


def _record_sets(labels: Mapping[str, str]) -> list[dict[str, Any]]:
    """The rows of metadata.csv, and the image files with the labels in their paths."""
    is_split = any(nfc(PurePosixPath(path).parts[0]) != label for path, label in labels.items())
    label_of_path = "^[^/]+/([^/]+)/.+$" if is_split else "^([^/]+)/.+$"  # train/<label>/…, or <label>/…
    table, files = {"fileObject": {"@id": METADATA}}, {"fileSet": {"@id": "files"}}
    columns = {"path": "file_name", "label": "label", "split": "split"}
    kinds: dict[str, Any] = {"label": ["sc:Text", "cr:Label"], "split": ["sc:Text", "cr:Split"]}
    full_path = {**files, "extract": {"fileProperty": "fullpath"}}
    return [
        _record_set(
            "examples",
            {key: (kinds.get(key, "sc:Text"), {**table, "extract": {"column": c}}) for key, c in columns.items()},
        ),
        _record_set(
            "images",
            {
                "path": ("sc:Text", full_path),
                "label": (kinds["label"], {**full_path, "transform": {"regex": label_of_path}}),
                "image": ("sc:ImageObject", {**files, "extract": {"fileProperty": "content"}}),
            },
        ),
    ]


def _record_set(name: str, fields: Mapping[str, tuple[Any, dict[str, Any]]]) -> dict[str, Any]:
    return {
        **{"@type": "cr:RecordSet", "@id": name, "name": name, "key": {"@id": f"{name}/path"}},
        "field": [
            {"@type": "cr:Field", "@id": f"{name}/{field}", "name": field, "dataType": kind, "source": source}
            for field, (kind, source) in fields.items()
        ],
    }


class OwnFiles:
    """Files that this project wrote, recognised by a record of their SHA-256, which is written before them.

    A file that was edited since counts as the user's.
    """

    def __init__(self, record: Path, *, is_ours: Callable[[Path], bool]) -> None:
        """
        Args:
            record: a JSON file: hashes of what was written, by file name; no two files have the same name.
            is_ours: whether a file that is not in the record was, by its content, written by an earlier version.
        """
        self._record, self._is_ours = record, is_ours

    def check(self, paths: Iterable[Path]) -> None:
        """Make sure that every file may be written, without changing anything.

        Raises:
            StorageError: a file was not written by this project, or the record is damaged.
        """
        record = self._read()
        for path in paths:
            if self._digest(path) not in (None, *record.get(path.name, ())) and not self._is_ours(path):
                raise StorageError(
                    f"{path} was not written by this script, or has been changed since: "
                    "move it away or rename it, and run again"
                )

    def write(self, texts: Mapping[Path, str]) -> list[Path]:
        """Write all files, or none if `check` refuses one; returns their paths.

        Raises:
            StorageError: as `check`; or a file cannot be written.
        """
        self.check(texts)
        # Also what is there now: a process that is killed in between leaves old and new files.
        known = {path: [self._digest(path), hashlib.sha256(text.encode()).hexdigest()] for path, text in texts.items()}
        written = {path.name: [digest for digest in digests if digest] for path, digests in known.items()}
        write_json(self._record, {**self._read(), **written})
        for path, text in texts.items():
            write_text(path, text)
        return list(texts)

    def _read(self) -> dict[str, list[str]]:
        record = read_json(self._record) if self._record.exists() else {}
        if not isinstance(record, dict) or not all(isinstance(digests, list) for digests in record.values()):
            raise StorageError(f"{self._record} is damaged: delete it, and move away what it was written for")
        return record

    @staticmethod
    def _digest(path: Path) -> str | None:
        """SHA-256 of a file; None if there is none, "" if it is not a file or cannot be read."""
        try:
            return sha256(path)
        except FileNotFoundError:
            return "" if path.is_symlink() else None
        except OSError:
            return ""


class Export:
    """The exported files of one data set; files of others are never overwritten."""

    def __init__(self, images: Path, proc: Path) -> None:
        """
        Args:
            images, proc: the folders of the data set.
        """
        self._images, self._tasks = images, proc / TASKS
        self._own = OwnFiles(proc / RECORD, is_ours=_is_ours)

    def check(self) -> None:
        """Make sure, before anything is changed, that all files may be written.

        Raises:
            StorageError: a file was not written by this project.
        """
        self._own.check(self._placed(dict.fromkeys((METADATA, CROISSANT), ""), self._images))
        self._own.check(self._placed(dict.fromkeys((label_studio.TASKS, label_studio.INTERFACE), ""), self._tasks))

    def write(
        self,
        examples: Sequence[Example],
        *,
        moved: Mapping[str, str],
        suggested: Mapping[str, tuple[str, float]] = MappingProxyType({}),
        unlabelled: Sequence[Example] = (),
    ) -> list[Path]:
        """Write the files, all or none; returns their paths.

        Args:
            moved: the current path of every image that was moved by hand, by its original path.
            suggested, unlabelled: for Label Studio, see `label_studio.describe`.

        Raises:
            StorageError: a file was not written by this project, or cannot be written.
        """
        name = self._images.name
        described = self._placed(describe(examples, name=name), self._images)
        tasks = label_studio.describe(examples, dataset=name, moved=moved, suggested=suggested, unlabelled=unlabelled)
        return self._own.write(described | self._placed(tasks, self._tasks))

    @staticmethod
    def _placed(texts: Mapping[str, str], folder: Path) -> dict[Path, str]:
        return {folder / name: text for name, text in texts.items()}


def _is_ours(path: Path) -> bool:
    """Whether an earlier version wrote a file, by its content."""
    is_description = path.name in (METADATA, CROISSANT)
    return is_ours(path) if is_description else label_studio.is_ours(path)
