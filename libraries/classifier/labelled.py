"""What an SVM is trained and tested on: the embeddings of all images, with their labels, sides and groups."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np

from libraries.base.arrays import Bool, Float32, Int, as_slice
from libraries.data.dataset import Example, read_examples
from libraries.data.split import training_warnings
from libraries.network.embedding_store import read_features


@dataclass(frozen=True)
class LabelledEmbeddings:
    """The N images of a feature store; those for training come first, unless they are many parts of a whole.

    Attributes:
        names: K classes, in alphabetical order.
        embeddings: float32 [N, D].
        labels: int [N], the classes by number.
        is_train: bool [N], whether an image is for training; all others are for testing.
        groups: N names; images of one group belong together.
        seen: bool [N], whether the network was trained on the image.
        scores: float32 [N, K], of the network's own head; None: it has none.
    """

    names: list[str]
    embeddings: Float32
    labels: Int
    is_train: Bool
    groups: list[str]
    seen: Bool
    scores: Float32 | None = None

    @classmethod
    def read(
        cls, features: Path, examples: Path, *, seen: Collection[str] = (), names: Sequence[str] | None = None
    ) -> Self:
        """Join a feature store with examples.csv, which knows the groups.

        Args:
            seen: paths of the images that the network was trained on.
            names: of the classes, in another order.
        """
        stored = read_features(features, first="train")
        by_path = {example.path: example for example in read_examples(examples)}
        of_rows = [by_path[path] for path in stored.path]
        return cls.of(of_rows, stored.embedding, stored.scores, seen=seen, names=names or sorted({*stored.label}))

    @classmethod
    def of(
        cls,
        examples: Sequence[Example],
        embeddings: Float32,
        scores: Float32 | None,
        *,
        seen: Collection[str],
        names: Sequence[str],
    ) -> Self:
        """Of N examples, with what a network says of them; see `read`."""
        number = {name: i for i, name in enumerate(names)}
        return cls(
            list(names),
            embeddings,
            np.array([number[example.label] for example in examples]),
            np.array([example.split == "train" for example in examples]),
            [example.group for example in examples],
            np.array([example.path in seen for example in examples]),
            scores,
        )

    @property
    def training(self) -> tuple[Float32, Int]:
        """Embeddings and labels of the training images."""
        rows = as_slice(self.is_train)
        return self.embeddings[rows], self.labels[rows]

    @property
    def test(self) -> tuple[Float32, Int]:
        """Embeddings and labels of the test images."""
        rows = as_slice(~self.is_train)
        return self.embeddings[rows], self.labels[rows]

    @property
    def training_groups(self) -> list[str]:
        """The groups of the training images."""
        return [group for group, is_train in zip(self.groups, self.is_train, strict=True) if is_train]

    @property
    def training_seen(self) -> Bool:
        """Which of the training images the network was trained on."""
        return np.asarray(self.seen[as_slice(self.is_train)])

    def summary_lines(self) -> list[str]:
        """How much there is to train on, and a warning for each class of too few images."""
        embeddings, labels = self.training
        return [
            f"Training on {len(labels):,} embeddings of {embeddings.shape[1]:,} numbers, {len(self.names)} classes",
            *training_warnings(self.names, [self.names[i] for i in labels], self.training_groups),
        ]
