"""What a plain random split leaks, on data made to leak."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from libraries.base.layout import Layout
from libraries.data.dataset import Example, split
from libraries.evaluation import leak
from libraries.network.embedding_store import write_features
from tests.conftest import small_run

SEEDS = range(4)
PICTURES = 40  # in each class


def leaking(copies: int) -> tuple[list[Example], np.ndarray]:
    """Two classes that embeddings say nothing about, except that all copies of a picture have the same one."""
    generator = np.random.default_rng(0)
    examples, embeddings = [], []
    for label in ("cat", "dog"):
        for i in range(PICTURES):
            embedding = generator.normal(size=64)
            for copy in range(copies):
                examples.append(Example(f"{label}/{i}-{copy}.png", label, "train", f"{label}{i}", 8, 6, 1, ""))
                embeddings.append(embedding)
    return examples, np.array(embeddings, np.float32)


def test_leaked_images_as_a_naive_count() -> None:
    examples, _ = leaking(3)
    found = leak.leaked_images(examples, ratio_train=0.75, seeds=SEEDS)
    for seed, count, tested in zip(SEEDS, found.leaked, found.tested, strict=True):
        alone = [Example(**{**e.__dict__, "group": e.path}) for e in examples]
        parts = split(alone, ratio_train=0.75, seed=seed)
        side = {p.path: p.split for p in parts}
        twins = [
            e.path
            for e in examples
            if side[e.path] == "test" and any(o.group == e.group and side[o.path] == "train" for o in examples)
        ]
        assert count == len(twins) > 0.8 * tested
        assert tested == sum(s == "test" for s in side.values())
    assert "test images (9" in found.summary() and "mean of 4 splits" in found.summary()


def test_without_duplicates_nothing_leaks() -> None:
    examples, embeddings = leaking(1)
    assert leak.leaked_images(examples, ratio_train=0.75, seeds=SEEDS).leaked.tolist() == [0] * 4
    told = leak.leaked_accuracy(
        examples, embeddings, ratio_train=0.75, seeds=SEEDS, normalisation="standardise", c=1.0
    ).summary_lines()
    assert len(told) == 1, "there are no images with a duplicate in training to tell of"


def test_accuracy_that_is_only_leaked() -> None:
    examples, embeddings = leaking(3)
    found = leak.leaked_accuracy(
        examples, embeddings, ratio_train=0.75, seeds=SEEDS, normalisation="standardise", c=1.0
    )
    assert found.plain.mean() > 0.9, "learnt by heart"
    assert found.grouped.mean() < 0.65, "there was nothing to learn"
    assert found.of_leaked.mean() > 0.95 and found.of_leaked.mean() > np.nanmean(found.of_others)
    worth = 100 * (found.plain.mean() - found.grouped.mean())
    assert f"the leak is worth +{worth:.1f} points" in found.summary_lines()[0]
    assert found.summary_lines()[1].startswith("In the plain splits, test images with a duplicate in training:")


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(small_run(tmp_path))


def store(layout: Layout, examples: list[Example], embeddings: np.ndarray) -> None:
    layout.features.folder.mkdir(parents=True)
    row = {e.path: i for i, e in enumerate(examples)}
    write_features(
        layout.features.folder,
        examples,
        key="0",
        run=lambda wanted: ((e, {"embedding": embeddings[row[e.path]]}) for e in wanted),
    )
    layout.features.manifest.write_text("{}")


def test_report_names_the_script_that_is_missing(layout: Layout) -> None:
    told = leak.report(leaking(2)[0], layout, ratio_train=0.75, seed=0)
    assert len(told) == 2 and "once scripts/3_runDNN.py has run" in told[1]


def test_report_does_not_judge_by_a_network_that_has_seen_the_images(tmp_path: Path) -> None:
    told = leak.report(leaking(2)[0], Layout(small_run(tmp_path, classifier="dnn")), ratio_train=0.75, seed=0)
    assert len(told) == 2 and "with classifier = 'svm'" in told[1]


def test_report_with_embeddings_of_some_and_the_chosen_c(layout: Layout) -> None:
    examples, embeddings = leaking(2)
    store(layout, examples[:-4], embeddings)
    told = leak.report(examples, layout, ratio_train=0.75, seed=0)
    assert told[1].startswith("4 images have no embedding yet") and "the leak is worth +" in told[2]
    sweep = layout.svm.folder / "sweep.csv"
    sweep.parent.mkdir()
    rows = ["normalisation,C,validation_accuracy,test_accuracy", "l2,10.0,0.8,0.7", "l2,1.0,0.8,0.6", "l2,2.0,0.7,0.9"]
    sweep.write_text("\n".join(rows))
    assert leak.chosen_svm(sweep) == ("l2", 1.0)
    assert leak.report(examples, layout, ratio_train=0.75, seed=0)[2] != told[2]


def test_report_without_duplicates_is_one_line(layout: Layout) -> None:
    examples, embeddings = leaking(1)
    store(layout, examples, embeddings)
    told = leak.report(examples, layout, ratio_train=0.75, seed=0)
    assert told[0].startswith("Under a plain random split 0.0 of 20 test images (0.0%)") and len(told) == 1


def test_nothing_is_divided_by_test_images_that_are_not_there() -> None:
    """Classes of one picture: alone, all are for training; copies of it are parted by a plain split alone."""
    single = [Example(f"{label}/0.png", label, "train", label, 8, 6, 1, "") for label in ("cat", "dog")]
    assert "no test image" in leak.leaked_images(single, ratio_train=0.75, seeds=SEEDS).summary()
    copies = [replace(e, path=f"{e.label}/{i}.png") for e in single for i in range(4)]
    found = leak.leaked_accuracy(
        copies, np.eye(8, dtype=np.float32), ratio_train=0.75, seeds=SEEDS, normalisation="l2", c=1.0
    )
    assert np.isnan(found.grouped).all()
    assert "cannot be told" in found.summary_lines()[0]


def test_the_marked_row_of_the_sweep_is_the_chosen_one(tmp_path: Path) -> None:
    rows = "l2,1.0,0.9,False\nsqrt_l2,10.0,,True\n"
    (tmp_path / "sweep.csv").write_text(f"normalisation,C,validation_accuracy,chosen\n{rows}", encoding="utf-8")
    assert leak.chosen_svm(tmp_path / "sweep.csv") == ("sqrt_l2", 10.0)
