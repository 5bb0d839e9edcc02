"""Tables of labels as competitions have them."""

from pathlib import Path

import pytest

from libraries.base.errors import InputError, MissingInput
from libraries.data.exchange.label_table import LabelTable, read_label_table


def read(folder: Path, content: str | bytes, *columns: str) -> LabelTable:
    path = folder / "train.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_label_table(path, columns=columns)


def said(table: LabelTable) -> list[tuple[str, str, str]]:
    return [(row.file, row.label, row.side) for row in table.rows]


PLAIN = [("a.jpg", "cat", "train"), ("b.jpg", "dog", "train")]


@pytest.mark.parametrize(
    "content",
    [
        "image,label\na.jpg,cat\nb.jpg,dog\n",
        "file_name\tspecies\r\na.jpg\tcat\r\n\r\nb.jpg\tdog",
        "Image ID;Class\ra.jpg;cat\rb.jpg;dog\r",
        'breed,id,comment\ncat,a.jpg,"one, two\nthree"\n dog , b.jpg ,\n',
        "x,path,img_id,class_id,class_name\n1,a.jpg,7,0,cat\n2,b.jpg,8,1,dog\n",
        "a.jpg,cat\nb.jpg,dog\n",
        "id,what\na.jpg,cat\nb.jpg,dog\n",
        "what,label\na.jpg,cat\nb.jpg,dog\n",
        "image,cat,dog,cow\na.jpg,1.0,0.0,0.0\nb.jpg,0,1,0\n",
        "image,label,fold\na.jpg,cat,3\nb.jpg,dog,0\n",
        "image,label\na.jpg,cat\nb.jpg,dog\n".encode("utf-16"),
        "\ufeffimage,label\na.jpg,cat\nb.jpg,dog\n",
    ],
)
def test_forms_of_a_table(tmp_path: Path, content: str | bytes) -> None:
    assert said(read(tmp_path, content)) == PLAIN


@pytest.mark.parametrize(
    ("content", "sides"),
    [
        ("image,label,split\na,x,train\nb,y,Validation\nc,x,TEST\nd,y,\n", ["train", "train", "test", "train"]),
        ("image,emotion,Usage\na,x,Training\nb,y,PublicTest\nc,z,PrivateTest\n", ["train", "test", "test"]),
        ("a.jpg,x,train\nb.jpg,y,test\n", ["train", "test"]),
    ],
)
def test_sides_of_the_split(tmp_path: Path, content: str, sides: list[str]) -> None:
    assert [row.side for row in read(tmp_path, content).rows] == sides


def test_columns_may_be_named(tmp_path: Path) -> None:
    table = read(tmp_path, "id,label,caption,part\n1,x,cat,test\n", "id", "caption", "part")
    assert said(table) == [("1", "cat", "test")] and table.columns == ["id", "caption", "part"]


def test_numbers_and_composed_texts_are_labels(tmp_path: Path) -> None:
    assert [row.label for row in read(tmp_path, "id,y\n1,0\n2,1\n3,Mu\u0308ll\n").rows] == ["0", "1", "M\u00fcll"]


def test_rows_without_a_label_are_counted(tmp_path: Path) -> None:
    table = read(tmp_path, "id,label\n1,cat\n2,\n3, \n")
    assert said(table) == [("1", "cat", "train")] and table.without_label == (2, 3)
    table = read(tmp_path, "id,a,b,c\n1,1,0,0\n2,0,0,0\n3,1,1,0\n")
    assert said(table) == [("1", "a", "train")] and table.without_label == (2, 3)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("image,label\na,cat\nb,x/y\n", r"line 3: label 'x/y' cannot be a folder name"),
        ("image,label\na,cat\nb,..\n", r"line 3: label '..' cannot be"),
        ("image,label\na,cat\n,dog\n", r"line 3 names no file"),
        ("image,label\na,cat\nb\n", r"line 3 has 1 columns, fewer than the header"),
        ("image,label,split\na,cat,train\nb,dog,later\n", r"line 3: 'later' is not a side of the split: write train"),
        ("image,label\na,Cat\nb,cat\n", r"labels 'cat' and 'Cat' differ only in case"),
        ("image,label\na,\n", r"gives no image a label"),
        ("image,label\n", r"gives no image a label"),
        ("", r"train\.csv is empty: expected a header, and a row"),
        ("\n \n", r"is empty: expected a header"),
        ("image\na\n", r"none of the columns has a usual name for labels"),
        (
            "image,left,top\na,3,4\n",
            r"usual name for labels; they are image, left, top: name the columns with --imgLabels",
        ),
        ("x,y,z\na,3,4\n", r"none of the columns has a usual name for files; they are x, y, z"),
        ("image,a,b\n1,0,1\n2,0,7\n", r"line 3: expected 0 or 1 in column 'b', found '7'"),
        ('image,label\na,"' + "x" * 140_000 + "\n", r"line \d is not a table row"),
        ("image,label\na,c\xe9\n".encode("cp1252"), r"line 2 is neither UTF-8 nor UTF-16 text"),
        (b"image,label\na,c\0t\n", r"line 2 contains NUL characters"),
    ],
)
def test_bad_tables_name_file_and_line(tmp_path: Path, content: str | bytes, problem: str) -> None:
    with pytest.raises(InputError, match=problem) as raised:
        read(tmp_path, content)
    assert str(tmp_path / "train.csv") in str(raised.value) and "\n" not in str(raised.value)


def test_columns_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no column 'dx'; it has image, label"):
        read(tmp_path, "image,label\na,cat\n", "image", "dx")
    with pytest.raises(InputError, match="imgLabelsColumns has 1 names"):
        read(tmp_path, "image,label\na,cat\n", "image")
    with pytest.raises(MissingInput, match="does not exist"):
        read_label_table(tmp_path / "none.csv")
