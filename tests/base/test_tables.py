"""CSV that no spreadsheet runs, and that comes back as it was."""

import csv
import io
import random
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import pytest

from libraries.base.errors import StorageError
from libraries.base.tables import (
    Column,
    column_names,
    csv_line,
    csv_records,
    csv_rows,
    described,
    plain,
    protected,
    read_table,
    write_csv,
    write_table,
)
from libraries.data.dataset import Example, read_examples, write_examples
from libraries.data.quality import read_review
from libraries.widgets.results import read_predictions
from tests.conftest import ROOT

RUN = [
    '=HYPERLINK("http://a")',
    *("+1", "-1", "@SUM(1)", "\t=1", "\tx", "\r=1", "\nx", "'=1", "''=1", " =1", "\u00a0=1", "\ufeff=1", "\u200b@a"),
    *("\uff1d1", "\uff0d1", "\uff0b1", "\uff20a", "=1/x.jpg", "\0=1"),
]
LEFT = ["", "a", "'", "''", "'tis", "1=1", "cat/=1.jpg", " a", "ö", "a\n=1", "#REF", "_", '"=1"']


@pytest.mark.parametrize("text", RUN)
def test_what_a_spreadsheet_would_run_is_protected(text: str) -> None:
    assert protected(text) == f"'{text}"
    assert plain(protected(text)) == text


@pytest.mark.parametrize("text", LEFT)
def test_all_else_is_left_as_it_is(text: str) -> None:
    assert protected(text) == text and plain(text) == text, "as in tables of earlier versions"


def test_any_texts_come_back(tmp_path: Path) -> None:
    choose = random.Random(0)
    letters = "'=+-@\t\r\n ;,\"a1\u00a0\u200bö\uff1d\0."
    texts = ["".join(choose.choices(letters, k=choose.randrange(6))) for _ in range(30_000)]
    rows = [dict(zip("abc", texts[i : i + 3], strict=True)) for i in range(0, len(texts), 3)]
    write_csv(tmp_path / "x.csv", rows)
    with (tmp_path / "x.csv").open(encoding="utf-8", newline="") as file:
        assert list(csv_records(file)) == rows
    with (tmp_path / "x.csv").open(encoding="utf-8", newline="") as file:
        cells = {cell for row in csv.reader(file) for cell in row}
    assert not [
        cell
        for cell in cells
        if cell.lstrip(" \n\r\t\0\u00a0\u200b")[:1] in ("=", "+", "-", "@", "\uff1d") and cell.strip()
    ]


def test_numbers_stay_numbers_and_none_is_empty() -> None:
    assert csv_line([-1.5, 7, None, "-1.5", True]) == "-1.5,7,,'-1.5,True\n"
    assert list(csv_rows(["-1.5,7,,'-1.5,True\n"])) == [["-1.5", "7", "", "-1.5", "True"]]


@pytest.mark.parametrize("text", ["a;=1", "a\t=1", "a,=1"])
def test_a_separator_of_another_countrys_spreadsheets_begins_no_cell(text: str) -> None:
    assert csv_line([text, "b"]) == f'"{text}",b\n'


def test_headers_are_protected_too(tmp_path: Path) -> None:
    write_csv(tmp_path / "x.csv", [{"=1": "a"}])
    assert (tmp_path / "x.csv").read_text() == "'=1\na\n"
    assert list(csv_records(io.StringIO("'=1\na\n"))) == [{"=1": "a"}]


@pytest.mark.parametrize("text", ["a,b\n1\n", "a,b\n1,2,3\n"])
def test_rows_that_do_not_fit_their_header_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="zip"):
        list(csv_records(io.StringIO(text)))


def test_all_tables_are_written_by_this_module() -> None:
    sources = [path for folder in ("libraries", "scripts") for path in (ROOT / folder).rglob("*.py")]
    assert not [path for path in sources if re.search(r"csv\.(DictW|w)riter", path.read_text(encoding="utf-8"))]


def test_odd_labels_and_paths_pass_through_the_projects_tables(tmp_path: Path) -> None:
    odd = ["=1", "-1", "+", "@home", "'=1", "'tis", "a;=1", "=2"]
    examples = [Example(f"{label}/-x.jpg", label, "train", f"{label}/=g", 8, 8, 1, "0" * 64) for label in odd]
    write_examples(tmp_path / "examples.csv", examples)
    assert read_examples(tmp_path / "examples.csv") == examples
    write_csv(tmp_path / "quality.csv", [{"path": e.path, "finding": "dark", "value": -0.5} for e in examples])
    assert read_review(tmp_path / "quality.csv") == {"dark": [e.path for e in examples]}
    probabilities = {f"probability of {name}": f"{1 / len(odd):.6f}" for name in odd}
    rows = [{"path": e.path, "label": e.label, "predicted": "=1", **probabilities} for e in examples]
    write_csv(tmp_path / "predictions.csv", rows)
    found = read_predictions(tmp_path / "predictions.csv")
    assert found.names == odd and found.paths == [e.path for e in examples]
    assert [found.names[i] for i in found.labels] == odd and set(found.predictions) == {0}


@dataclass(frozen=True)
class Animal:
    """A row of a typed table."""

    name: Annotated[str, Column("what it is called")]
    legs: Annotated[int, Column("how many")]
    kind: Annotated[Literal["cat", "bird"], Column("which it is")]
    weight: Annotated[float | None, Column("kilograms; empty where it was not weighed")]
    likes: Annotated[Mapping[str, float], Column("from 0 to 1", prefix="likes ", decimals=2)]
    tame: Annotated[bool, Column("whether it comes when called")] = False


TOM = Animal("=Tom", 4, "cat", 0.1 + 0.2, {"fish": 1.0, "=1": 0.25}, True)
TABLE = "name,legs,kind,weight,likes fish,likes =1,tame\n'=Tom,4,cat,0.30000000000000004,1.00,0.25,True\n"


def test_a_typed_table_comes_back_as_it_was(tmp_path: Path) -> None:
    birds = [TOM, Animal("Ö, 'x'", -2, "bird", None, {"fish": 0.5, "=1": 0.0})]
    write_table(tmp_path / "x.csv", Animal, birds)
    assert (tmp_path / "x.csv").read_text(encoding="utf-8") == TABLE + "\"Ö, 'x'\",-2,bird,,0.50,0.00,False\n"
    assert read_table(tmp_path / "x.csv", Animal, advice="") == birds


def test_a_typed_table_is_described() -> None:
    assert described(Animal)[::4] == [("name", "what it is called"), ("likes …", "from 0 to 1")]


def test_the_header_of_a_typed_table() -> None:
    assert column_names(Animal, ["fish", "=1"]) == TABLE.splitlines()[0].split(",")


def test_a_table_of_an_earlier_or_later_version(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("colour,kind,name,weight,legs,likes fish\nred,cat,Tom,3,4,1\n\n", encoding="utf-8")
    assert read_table(tmp_path / "x.csv", Animal, advice="") == [Animal("Tom", 4, "cat", 3.0, {"fish": 1.0})]


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("legs", "arms", "line 1 has no column 'legs'"),
        (",4,", ",four,", "line 2, column legs: invalid literal for int"),
        (",4,", ",4,4,", "line 2 has 8 cells instead of 7"),
        (",cat", ",dog", "line 2, column kind: 'dog' is not one of cat, bird"),
        (",True", ",yes", "line 2, column tame: 'yes' is not one of False, True"),
        (",1.00", ",", "line 2, column likes fish: could not convert"),
    ],
)
def test_what_is_wrong_with_a_typed_table_is_reported_in_one_line(
    before: str, after: str, message: str, tmp_path: Path
) -> None:
    (tmp_path / "x.csv").write_text(TABLE.replace(before, after), encoding="utf-8")
    with pytest.raises(StorageError, match=re.escape(f"{tmp_path / 'x.csv'} cannot be read ({message}")) as error:
        read_table(tmp_path / "x.csv", Animal, advice="count again")
    assert str(error.value).endswith(": count again") and "\n" not in str(error.value)
