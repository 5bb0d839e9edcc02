"""What is said of classes with few groups of training images."""

from libraries.data.dataset import Example
from libraries.data.split import summary, training_warnings


def example(label: str, number: int, group: str, side: str = "train") -> Example:
    return Example(f"{label}/{group}/{number}.png", label, side, f"{label}/{group}", 9, 9, 9, "0")  # type: ignore[arg-type]


def test_a_class_of_one_training_group_and_one_without_training_images_are_named() -> None:
    examples = [example("blue", i, "object0") for i in range(12)] + [example("blue", 0, "object1", "test")]
    examples += [example("red", i, f"object{i}", "train" if i else "test") for i in range(4)]
    examples += [example("gray", 0, "only", "test")]
    lines = summary(examples).splitlines()
    assert [line.replace(";", ",").split(",")[0] for line in lines if "Warning" in line] == [
        "Warning: class 'gray' has no training image",
        "Warning: blue: 1 group of 12 training images",
    ]


def test_many_classes_share_a_line_and_all_are_named() -> None:
    names = [f"c{i:02d}" for i in range(62)]
    (line,) = training_warnings(names, names, names)
    assert line.startswith("Warning: 62 classes have 1 group of training images each")
    assert all(name in line for name in names)


def test_of_classes_to_train_those_without_images_are_named() -> None:
    lines = training_warnings(["a", "b"], ["a", "a"], ["1", "2"])
    assert lines == [
        "Warning: class 'b' has no training image, so it is never predicted; add some, or remove the class"
    ]
