"""What a plain random split leaks, on data made to leak."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from libraries.data.dataset import Example, split
from libraries.evaluation import leak
from libraries.network.embedding_store import Features

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
        alone = [replace(e, group=e.path) for e in examples]
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


def features(examples: list[Example], embeddings: np.ndarray) -> Features:
    paths, labels = [e.path for e in examples], [e.label for e in examples]
    return Features(paths, labels, ["train"] * len(paths), embeddings, None)


def test_report_does_not_judge_by_a_network_that_has_seen_the_images() -> None:
    examples, embeddings = leaking(2)
    told = leak.report(examples, features(examples, embeddings), ratio_train=0.75, seed=0)
    assert len(told) == 2 and "with classifier = 'svm'" in told[1]


def test_report_by_an_svm_like_the_chosen_one(tmp_path: Path) -> None:
    sweep = tmp_path / "sweep.csv"
    assert leak.chosen_svm(sweep) == ("standardise", 0.001), "before step 4"
    rows = ["normalisation,C,validation_accuracy,test_accuracy", "l2,10.0,0.8,0.7", "l2,1.0,0.8,0.6", "l2,2.0,0.7,0.9"]
    sweep.write_text("\n".join(rows))
    assert leak.chosen_svm(sweep) == ("l2", 1.0)
    examples, embeddings = leaking(2)
    told = [
        leak.report(
            examples,
            features(examples[:-4], embeddings[:-4]),
            normalisation=normalisation,
            c=c,
            ratio_train=0.75,
            seed=0,
        )
        for normalisation, c in (leak.chosen_svm(sweep), ("standardise", 0.001))
    ]
    assert all("the leak is worth +" in lines[1] for lines in told)
    assert told[0][0] == told[1][0] and told[0][1] != told[1][1]


def test_report_without_duplicates_is_one_line() -> None:
    examples, embeddings = leaking(1)
    told = leak.report(examples, features(examples, embeddings), normalisation="l2", c=1.0, ratio_train=0.75, seed=0)
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
    assert "is unknown" in found.summary_lines()[0]


def test_the_marked_row_of_the_sweep_is_the_chosen_one(tmp_path: Path) -> None:
    rows = "l2,1.0,0.9,False\nsqrt_l2,10.0,,True\n"
    (tmp_path / "sweep.csv").write_text(f"normalisation,C,validation_accuracy,chosen\n{rows}", encoding="utf-8")
    assert leak.chosen_svm(tmp_path / "sweep.csv") == ("sqrt_l2", 10.0)
