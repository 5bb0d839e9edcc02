"""Files beside the class folders that tell others what is in them.

The folder of a data set is an ImageFolder as it is. metadata.csv tells Hugging Face's loader labels and sides of the
split, croissant.json describes the same to search engines and loaders
(https://docs.mlcommons.org/croissant/docs/croissant-spec.html).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from libraries.base.storage import sha256, write_csv, write_json
from libraries.data.class_folders import find_class_folders
from libraries.data.dataset import Example

METADATA, CROISSANT = "metadata.csv", "croissant.json"

_MEDIA_TYPES = {
    **dict.fromkeys((".jpg", ".jpeg", ".jfif"), "image/jpeg"),
    **{".png": "image/png", ".webp": "image/webp", ".gif": "image/gif", ".bmp": "image/bmp"},
    **dict.fromkeys((".tif", ".tiff"), "image/tiff"),
}
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


def describe(folder: Path, examples: Sequence[Example], *, name: str) -> list[Path]:
    """Write metadata.csv and croissant.json into the data set's folder; gives back their paths."""
    metadata, croissant = folder / METADATA, folder / CROISSANT
    rows = [{"file_name": e.path, "label": e.label, "split": e.split, "group": e.group} for e in examples]
    write_csv(metadata, rows)
    label_of_path = "^[^/]+/([^/]+)/.+$" if find_class_folders(folder).parts else "^([^/]+)/.+$"
    write_json(croissant, _croissant(examples, name=name, digest=sha256(metadata), label_of_path=label_of_path))
    return [metadata, croissant]


def _croissant(examples: Sequence[Example], *, name: str, digest: str, label_of_path: str) -> dict[str, Any]:
    """The description: metadata.csv, the image files, and a record set for each."""
    suffixes = sorted({PurePosixPath(e.path).suffix for e in examples})
    table, files = {"fileObject": {"@id": METADATA}}, {"fileSet": {"@id": "files"}}
    columns = {"path": "file_name", "label": "label", "split": "split"}
    kinds: dict[str, Any] = {"label": ["sc:Text", "cr:Label"], "split": ["sc:Text", "cr:Split"]}
    return {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": name,
        "description": f"{len(examples):,} images of {len({e.label for e in examples}):,} classes",
        "distribution": [
            {
                **{"@type": "cr:FileObject", "@id": METADATA, "name": METADATA, "contentUrl": METADATA},
                **{"encodingFormat": "text/csv", "sha256": digest},
            },
            {
                **{"@type": "cr:FileSet", "@id": "files", "name": "files"},
                "encodingFormat": sorted({_MEDIA_TYPES[suffix.lower()] for suffix in suffixes}),
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
