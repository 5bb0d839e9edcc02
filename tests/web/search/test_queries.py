from pathlib import Path

import pytest

from libraries.base.errors import InputError, MissingInput
from libraries.web.search.queries import MAX_QUERIES, Query, read_queries

ROOT = Path(__file__).parents[3]


def written(folder: Path, content: str | bytes) -> Path:
    path = folder / "someQueries.toml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_the_tutorials_garments_and_textures() -> None:
    read = read_queries(ROOT / "resources" / "fashionTextureQueries.toml")
    garments = ("blouse", "hoodie", "pullover", "sweater", "shirt", "t-shirt", "vest")
    assert read.images == 50
    assert read.queries == tuple(
        Query(label, f"{label} {garment}") for label in ("striped", "dotted", "leopard") for garment in garments
    )


def test_combinations_plain_queries_and_repetition(tmp_path: Path) -> None:
    text = """
        [words]
        colour = ["red", "  dark   blue "]
        fruit = ["plum", "fig"]
        [labels]
        fruit = ["{colour} {fruit}", "a plain one", "{fruit} and {fruit}", "RED plum", "a  plain one"]
        "Ka\u0308se" = ["cheese"]
    """
    read = read_queries(written(tmp_path, b"\xef\xbb\xbf" + text.encode().replace(b"\n", b"\r\n")))
    assert read.images == 50
    assert [query.text for query in read.queries] == [
        "red plum",
        "red fig",
        "dark blue plum",
        "dark blue fig",
        "a plain one",
        "plum and plum",
        "fig and fig",
        "cheese",
    ]
    assert read.queries[-1].label == "K\u00e4se"


MANY = "[" + ", ".join(f'"w{i}"' for i in range(30)) + "]"
LABEL = '[labels]\na = ["x"]\n'


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", ["labels", "there are none"]),
        ("images = 5", ["labels", "there are none"]),
        ('[labels]\na = ["{garmnt}"]\n[words]\ngarment = ["vest"]', ["labels.a", "{garmnt}", "the words are garment"]),
        ('[labels]\na = ["{garment}"]', ["labels.a", "{garment}", "[words] has none"]),
        ('[labels]\na = ["x {"]', ["labels.a", "brace"]),
        ('[labels]\na = ["{two words}"]', ["labels.a", "brace"]),
        ('[labels]\na = "x"', ["labels.a", "list of texts"]),
        ("[labels]\na = []", ["labels.a", "list of texts"]),
        ("[labels]\na = [1]", ["labels.a", "list of texts"]),
        ('[labels]\na.b = ["x"]', ["labels.a", "list of texts"]),
        ('[labels]\na = ["x", " "]', ["labels.a", "empty text"]),
        (LABEL + '[words]\nw = [""]', ["words.w", "empty text"]),
        (LABEL + "[words]\nw = []", ["words.w", "list of texts"]),
        (LABEL + "[words]\nw = 3", ["words.w", "list of texts"]),
        ('[labels]\n"a/b" = ["x"]', ["labels.a/b", "it holds one of"]),
        ('[labels]\n".." = ["x"]', ["labels...", "only dots"]),
        ('[labels]\n"#a" = ["x"]', ["labels.#a", "comments"]),
        ('[labels]\nCat = ["x"]\ncat = ["y"]', ["labels", "'Cat'", "'cat'"]),
        ('[labels]\na = ["one"]\nb = ["One"]', ["labels.b", "'One'", "'a'"]),
        ("labels = 3", ["labels", "[labels]"]),
        ('images = 0\n[labels]\na = ["x"]', ["images", "1 to 500"]),
        ('images = true\n[labels]\na = ["x"]', ["images", "1 to 500"]),
        ('images = 501\n[labels]\na = ["x"]', ["images", "1 to 500"]),
        ('images = "50"\n[labels]\na = ["x"]', ["images", "1 to 500"]),
        ('imges = 50\n[labels]\na = ["x"]', ["imges", "the keys are images, labels, words"]),
        (f'[labels]\na = ["{{w}} {{v}}"]\n[words]\nw = {MANY}\nv = {MANY}', ["labels.a", f"more than {MAX_QUERIES}"]),
        (f'[labels]\na = ["{"{w}" * 9}"]\n[words]\nw = ["{"long" * 10}"]', ["labels.a", "200 characters"]),
        (f'[labels]\na = ["{"x " * 51}"]', ["labels.a", "50 words"]),
        ('[labels]\na = ["x\\u0007y"]', ["labels.a", "control"]),
        ("[labels\n", ["not TOML", "line 1"]),
        ("a = " + "[" * 5000, ["not TOML"]),
        (b"[labels]\na = ['\xff']", ["line 2", "UTF-8"]),
        (b"#" * 1_000_001, ["1,000,000 bytes"]),
    ],
)
def test_bad_files_name_file_and_key(tmp_path: Path, content: str | bytes, words: list[str]) -> None:
    path = written(tmp_path, content)
    with pytest.raises(InputError) as raised:
        read_queries(path)
    message = str(raised.value)
    assert message.startswith(str(path)) and "\n" not in message
    assert all(word in message for word in words), message


def test_many_small_lists_are_bounded_too(tmp_path: Path) -> None:
    queries = ", ".join(f'"q{i}"' for i in range(MAX_QUERIES + 1))
    with pytest.raises(InputError, match=rf"labels\.a: more than {MAX_QUERIES} queries"):
        read_queries(written(tmp_path, f"[labels]\na = [{queries}]"))


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(MissingInput, match=r"someQueries\.toml does not exist"):
        read_queries(tmp_path / "someQueries.toml")
    with pytest.raises(InputError, match="cannot be read"):
        read_queries(tmp_path)
