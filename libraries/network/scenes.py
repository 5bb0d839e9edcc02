"""Embeddings that tell whether two pictures show the same scene, for the search for duplicates of step 1."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from libraries.base.arrays import Float32
from libraries.base.content_store import Row
from libraries.base.errors import ImageError
from libraries.base.layout import Layout
from libraries.data.checking import Checked
from libraries.data.dataset import Example
from libraries.data.images import ResizeRule
from libraries.network.runners import Embeddings, RunOptions, View

if TYPE_CHECKING:
    from libraries.network.pretrained import NetworkOptions


def embed_pretrained(
    checked: Checked,
    layout: Layout,
    options: "NetworkOptions",
    run_options: RunOptions,
    *,
    progress: Callable[[int], object] = lambda count: None,
    told: Callable[[str], object] = lambda size: None,
) -> list[Float32]:
    """Embeddings for finding duplicates, float32 [N, D] each: of the whole pictures, and of their inner parts.

    They come from the unchanged pretrained network, whose folder is written first if needed.

    Args:
        checked: N examples.
        options: which network.
        run_options: how it is run.
        progress: called with the number of embeddings just done, of 2 N.
        told: see `Cluster`.
    """
    network = layout.scene_network
    if not network.is_current():
        from libraries.network.artefact import resize_rule, write_network
        from libraries.network.pretrained import load_network_for

        pretrained = load_network_for(options, refine=False)
        write_network(network, pretrained, rule=resize_rule(pretrained, options.mode))
    rule = replace(ResizeRule.from_json(network.read()["resize"]), white_level=checked.white.level)
    views: tuple[View, ...] = ("whole", "inner")
    found = []
    for view in views:
        with Embeddings(layout, network, rule, run_options, view=view) as embeddings:
            computed = embeddings.compute(checked.examples, progress=progress, told=told)
            found.append(_matrix(embeddings.of(checked.examples), progress, already=computed))
    return found


def _matrix(
    results: Iterable[tuple[Example, Row | ImageError]], progress: Callable[[int], object], *, already: int
) -> Float32:
    """The embedding of every example, float32 [N, D]; NaN for those that cannot be read.

    Args:
        already: of how many examples `progress` was told before.
    """
    rows: list[Float32 | None] = []
    for _, outputs in results:
        rows.append(None if isinstance(outputs, ImageError) else outputs["embedding"].copy())
        if len(rows) > already:
            progress(1)
    size = next((len(row) for row in rows if row is not None), 0)
    return np.stack([np.full(size, np.nan, np.float32) if row is None else row for row in rows])
