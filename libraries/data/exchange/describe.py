"""Files beside the class folders that tell others what is in them.

The folder of a data set is an ImageFolder as it is. metadata.csv tells Hugging Face's loader labels and sides of the
split, croissant.json describes the same to search engines and loaders
(https://docs.mlcommons.org/croissant/docs/croissant-spec.html).
"""

import csv
import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from libraries.base.file_system import read_regular
from libraries.base.names import nfc
from libraries.base.storage import MAX_JSON_BYTES, csv_text, json_text
from libraries.base.tables import csv_records, protected
from libraries.data.dataset import Example
from libraries.data.formats import MEDIA_TYPES

METADATA, CROISSANT = "metadata.csv", "croissant.json"
COLUMNS = ("file_name", "label", "split", "group")

_OTHER = "application/octet-stream"  # what a file is whose suffix is none of an image
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


def describe(examples: Sequence[Example], *, name: str) -> dict[str, str]:
    """What metadata.csv and croissant.json have to say of a data set, by their names."""
    rows = [{"file_name": _named(e.path), "label": e.label, "split": e.split, "group": e.group} for e in examples]
    metadata = csv_text(rows, columns=COLUMNS)
    labels = {e.path: e.label for e in examples}
    return {METADATA: metadata, CROISSANT: json_text(_croissant(labels, name=name, digest=_digest(metadata.encode())))}


def _named(path: str) -> str:
    """A path as a cell that no spreadsheet runs, and that is still the path."""
    return path if protected(path) == path else f"./{path}"


def is_ours(path: Path) -> bool:
    """Whether this project wrote metadata.csv and croissant.json: they are what `describe` makes, and nothing else.

    croissant.json holds the SHA-256 of metadata.csv, and all else in it follows from that and from the name.
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
    """The description: metadata.csv, the image files, and a record set for each.

    Args:
        labels: by path.
        digest: SHA-256 of metadata.csv.
    """
    suffixes = sorted({PurePosixPath(path).suffix for path in labels})
    is_divided = any(nfc(PurePosixPath(path).parts[0]) != label for path, label in labels.items())
    label_of_path = "^[^/]+/([^/]+)/.+$" if is_divided else "^([^/]+)/.+$"  # train/<label>/…, or <label>/…
    table, files = {"fileObject": {"@id": METADATA}}, {"fileSet": {"@id": "files"}}
    columns = {"path": "file_name", "label": "label", "split": "split"}
    kinds: dict[str, Any] = {"label": ["sc:Text", "cr:Label"], "split": ["sc:Text", "cr:Split"]}
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
        "recordSet": [
            _record_set(
                "examples",
                {key: (kinds.get(key, "sc:Text"), {**table, "extract": {"column": c}}) for key, c in columns.items()},
            ),
            _record_set(
                "images",
                {
                    "path": ("sc:Text", {**files, "extract": {"fileProperty": "fullpath"}}),
                    "label": (
                        kinds["label"],
                        {**files, "extract": {"fileProperty": "fullpath"}, "transform": {"regex": label_of_path}},
                    ),
                    "image": ("sc:ImageObject", {**files, "extract": {"fileProperty": "content"}}),
                },
            ),
        ],
    }


def _record_set(name: str, fields: Mapping[str, tuple[Any, dict[str, Any]]]) -> dict[str, Any]:
    return {
        **{"@type": "cr:RecordSet", "@id": name, "name": name, "key": {"@id": f"{name}/path"}},
        "field": [
            {"@type": "cr:Field", "@id": f"{name}/{field}", "name": field, "dataType": kind, "source": source}
            for field, (kind, source) in fields.items()
        ],
    }
