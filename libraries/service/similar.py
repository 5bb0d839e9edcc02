"""The training images that are most like a picture: where they are on this machine, and may be shown."""

import base64
import io
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np
from PIL import Image

from libraries.base.arrays import Float32
from libraries.base.errors import ImageError
from libraries.base.layout import Layout
from libraries.base.storage import read_json
from libraries.classifier.explain import nearest
from libraries.data.images import ResizeRule, load
from libraries.service.model import LoadedModel

log = logging.getLogger(__name__)

MOST = 20_000  # training images that are searched: a sample of more
COUNT, SIDE = 3, 128  # pictures, and their pixels


class Similar:
    """The training images of one bundle.

    Args:
        files: of the bundle whose embeddings these are, see model.json.
        paths, labels: N training images.
        embeddings: float32 [N, D].
        picture: path → a small JPEG; raises ImageError.
    """

    def __init__(
        self,
        files: Mapping[str, str],
        paths: list[str],
        labels: list[str],
        embeddings: Float32,
        picture: Callable[[str], bytes],
    ) -> None:
        self._files, self._paths, self._labels = files, paths, labels
        self._embeddings, self._picture = embeddings, picture

    @classmethod
    def of(cls, layout: Layout) -> Self:
        """Those of the current bundle; raises StorageError if they cannot be read."""
        from libraries.data.dataset import read_white_level  # not installed where bundles are only served
        from libraries.network.embedding_store import read_features

        features = read_features(layout.features.folder, first="train")
        rows = np.flatnonzero(np.array(features.split) == "train")
        rows = np.sort(np.random.default_rng(0).permutation(rows)[:MOST])
        rule = ResizeRule(SIDE, "pad", "bicubic", (255, 255, 255), read_white_level(layout.examples))

        def picture(path: str) -> bytes:
            file = io.BytesIO()
            Image.fromarray(load(layout.images / path, rule, max_pixels=layout.max_pixels)).save(
                file, "JPEG", quality=82
            )
            return file.getvalue()

        paths, labels = ([values[row] for row in rows] for values in (features.path, features.label))
        files = read_json(layout.bundle.manifest)["files"]
        return cls(files, paths, labels, np.array(features.embedding[rows]), picture)

    def is_of(self, loaded: LoadedModel) -> bool:
        """Whether these are the embeddings of this bundle's network."""
        return bool(loaded.classifier.model["files"] == self._files)

    def to(self, embedding: Float32) -> list[dict[str, Any]]:
        """The most similar ones as JSON: label, and a picture that a page can show.

        Args:
            embedding: float32 [D].
        """
        (rows,), (likeness,) = nearest(self._embeddings, embedding[None], count=COUNT)
        found = []
        for row, cosine in zip(rows.tolist(), likeness.tolist(), strict=True):
            try:
                data = base64.b64encode(self._picture(self._paths[row])).decode()
            except (ImageError, OSError):  # moved, or gone
                continue
            found.append(
                {"label": self._labels[row], "similarity": cosine, "picture": f"data:image/jpeg;base64,{data}"}
            )
        return found


def find_similar(layout: Layout, folder: Path) -> Similar | None:
    """Those of a bundle, if it is the current one and its images are there."""
    if folder != layout.bundle.folder:
        return None
    try:
        return Similar.of(layout)
    except Exception as error:  # the service answers without them
        log.warning("training images are not shown: %s", " ".join(str(error).split()))
        return None
