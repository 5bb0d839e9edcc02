"""The documentation: links lead somewhere, commands work, and what is made from the code is up to date."""

import json
import re
import runpy
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from libraries.base import stages
from libraries.base.command import flags_of
from libraries.base.layout import Layout
from libraries.base.tables import described
from libraries.classifier.bundle import Classifier
from libraries.classifier.reference import Reference
from libraries.evaluation.release import keep_release
from libraries.network.embedding_store import read_features
from PARAMETERS import RESOURCES, Parameters
from tests import fake_search
from tests.cntk.goldens import unpacked
from tests.conftest import ROOT, SCRIPTS, STEPS, run_main
from tests.data.test_solar_cells import package
from tests.documented import OTHERS, PROMPTS, Block, Command, Page
from tests.service.conftest import Live, start_service
from tests.trying import Place

__all__ = ["package", "start_service"]

NAMES = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")
PAGES = [Page(path) for path in (*(ROOT / name for name in NAMES), *sorted((ROOT / "docs").glob("*.md")))]
COMMANDS = list({command.text: command for page in PAGES for command in page.commands()}.values())

FEEDBACK_KEY = "key-of-those-who-tell"
SMALL = {"rf_inputResolution": 64, "svm_CVals": (0.01,), "svm_boL2Normalize": True, "runHistory": False}

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


@each_page
def test_links_lead_somewhere(page: Page) -> None:
    for link in page.links():
        if not link.startswith("https://"):
            name, _, anchor = link.partition("#")
            path = (page.path.parent / name).resolve() if name else page.path
            assert path.exists(), link
            assert not anchor or anchor in Page(path).anchors(), link


@each_page
def test_blocks_say_what_they_are(page: Page) -> None:
    """So that no command is taken for something else."""
    assert page.text.count("```") == 2 * len(page.blocks)
    assert {block.language for block in page.blocks} <= {*PROMPTS, *OTHERS}


def test_every_page_is_listed_in_the_readme() -> None:
    listed = {(ROOT / link).resolve() for link in PAGES[0].links() if not link.startswith("https://")}
    assert {page.path for page in PAGES[1:]} <= listed


def test_every_picture_is_shown_and_small() -> None:
    shown = {(page.path.parent / link).resolve() for page in PAGES for link in page.links()}
    pictures = set((ROOT / "docs" / "pictures").iterdir())
    assert pictures <= shown
    assert all(picture.stat().st_size < 200_000 for picture in pictures)


def test_readme_is_short() -> None:
    assert len(PAGES[0].text.splitlines()) <= 150


def test_generated_pages_are_what_the_code_gives() -> None:
    for path, text in runpy.run_path(str(ROOT / "docs" / "generate.py"))["generated"]().items():
        assert path.read_text(encoding="utf-8") == text, "make docs"


def test_every_table_that_a_script_writes_is_described() -> None:
    tables = runpy.run_path(str(ROOT / "docs" / "generate.py"))["TABLES"]
    written = set(re.findall(r"[\w<>]+\.csv\b(?!\.)", stages.table()))
    assert written <= {Path(name).name for name in tables}
    assert all(name and about for kind in tables.values() for name, about in described(kind))


# Commands


@pytest.fixture(scope="module")
def solar_cells(tmp_path_factory: pytest.TempPathFactory, bundle: Path) -> Path:
    """The small data set with a whole run, under the name of the demo's."""
    root = tmp_path_factory.mktemp("solarCells") / "data"
    shutil.copytree(bundle.parents[2], root)
    for folder in ("images", "proc"):
        (root / folder / "textures").rename(root / folder / "solarCells")
    parameters = Parameters.load({"rootDir": root, **SMALL})
    for step in STEPS:
        run_main(step, parameters)
    remember_test_images(Layout(parameters))
    keep_release(Layout(parameters), "spring", [])
    return root


def remember_test_images(layout: Layout) -> None:
    """As script 5 does where there are enough of them."""
    features, bundle = read_features(layout.features.folder), Classifier(layout.bundle.folder)
    answers = np.stack([answer.probabilities for answer in bundle.predict_embeddings(features.embedding)])
    reference = Reference.of(features.embedding, features.embedding, answers)
    reference.save(layout.bundle.folder, of=bundle.model["files"])


@pytest.fixture
def place(
    tmp_path: Path, solar_cells: Path, served: Live, search: str, start_service: Callable[..., Live], pictures: Path
) -> Iterator[Place]:
    """A user's home with a finished run on the demo's data set, and a folder with what the commands name."""
    home, work = tmp_path / "home", tmp_path / "work"
    data = shutil.copytree(solar_cells, home / "imageClassification")
    shutil.copytree(pictures / "checks", data / "images" / "solarCells.pool" / "monday")
    here = {"searchUrl": search, "download_allowedHosts": "127.0.0.1", "url": served.url}
    work.mkdir()
    write_files(work, pictures, search)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(home))
        patch.chdir(work)
        patch.setenv("SERVICE_FEEDBACK_KEY", FEEDBACK_KEY)
        for name, value in {**SMALL, **here}.items():
            patch.setenv(f"PARAMETERS_{name}", str(value).strip("(),"))
        replacements = {
            "<this repository>": "REPOSITORY",
            "<name>": "leaves",
            "<address>": "models:/m-0",
            "--rightLabel defective": "--rightLabel blobs",
            "<scoring URI>": f"{served.url}/score",
            "http://127.0.0.1:5000/invocations": f"{served.url}/score",
            "http://127.0.0.1:8080": served.url,
            "/some/folder": str(data),
        }
        yield Place(patch, start_service, replacements)


def write_files(folder: Path, pictures: Path, search: str) -> None:
    """What users are told to have: pictures, tables, lists, an old network."""
    shutil.copytree(pictures / "blobs", folder / "train")
    shutil.copytree(pictures, folder / "some" / "pictures")
    shutil.copy(pictures / "checks" / "00.png", folder / "cell.png")
    rows = [f"{path.name},{'ab'[i % 2]}" for i, path in enumerate(sorted((folder / "train").iterdir()))]
    (folder / "train.csv").write_text("\n".join(["image,label", *rows]))
    (folder / "list.tsv").write_text("".join(f"a\t{search}/files/{i}.jpg\n" for i in range(3)))
    (folder / "export.json").write_text(json.dumps([]))
    unpacked("cntk_fixed.model", folder).rename(folder / "cntk_refined.model")


@pytest.fixture(scope="module")
def served(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """The service that commands call."""
    folder = tmp_path_factory.mktemp("kept")
    with Live(bundle, f"--serve_keepFolder={folder}", SERVICE_FEEDBACK_KEY=FEEDBACK_KEY) as live:
        live.wait_for("Ready: ")
        yield live


@pytest.fixture(scope="module")
def search() -> Iterator[str]:
    """The address of a service that finds one image for each query."""
    with fake_search.serving() as server:
        server.answers = [fake_search.openverse(1, server.url)]
        yield server.url


@pytest.mark.filterwarnings("ignore")  # what MLflow warns of is not ours to mend
@pytest.mark.usefixtures("package")
@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: f"{command.where} {command.text}")
def test_command(place: Place, command: Command) -> None:
    place.attempt(command)


@pytest.mark.parametrize(
    "block", [block for page in PAGES for block in page.blocks if block.language in ("python", "toml")]
)
def test_example(place: Place, block: Block, capsys: pytest.CaptureFixture[str]) -> None:
    if block.language == "toml":
        assert block.text in (RESOURCES / "fashionTextureQueries.toml").read_text(encoding="utf-8")
    else:
        exec(block.text, {})
        assert capsys.readouterr().out.startswith("cell.png ")


@each_page
def test_parameters_in_sentences_exist(page: Page) -> None:
    """`--name value`, `--flag` and `name = value`, wherever they stand."""
    flags = {flag for path in SCRIPTS.glob("*.py") for flag in flags_of(runpy.run_path(str(path))["main"])}
    for code in page.code:
        if code.startswith("--"):
            name, _, value = code.removeprefix("--").partition(" ")
            if value and name != "name":
                Parameters.load({name: value})
            elif name not in {*flags, "help", "verbose", "name"}:
                Parameters.check_name(name)
        elif (found := re.fullmatch(r"(\w+) = \"?([^\"<]+)\"?", code)) and "*" not in code:
            Parameters.load({found[1]: found[2]})
        elif re.match(r"(rf|svm|serve|run|download|duplicates)_\w+$", code):
            Parameters.check_name(code)
