"""Commands of the documentation, tried: run on the small data set where that is possible, else checked word by word.

A program that is not in `PROGRAMS` is an AssertionError, so that no command goes untried.
"""

import os
import re
import runpy
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from libraries.base.command import flags_of, parse
from libraries.base.layout import Layout
from PARAMETERS import Parameters
from tests.conftest import ROOT, SCRIPTS
from tests.documented import Command
from tests.service.processes import ServerProcess

FOLDER = "imageClassification"  # that the project is cloned to
TAG = "image-classification"
REGISTRY = "registry.example.org/"


@dataclass
class Place:
    """Where a command is typed: HOME has a DATA_DIR, and the working folder the files that the commands name.

    Attributes:
        start_service: starts scripts/deploymain.py with options, and waits until it is ready.
        replacements: what stands in commands for something else, and what to take instead.
    """

    patch: pytest.MonkeyPatch
    start_service: Callable[..., object]
    replacements: dict[str, str]

    def attempt(self, command: Command) -> None:
        """Try it; raises what goes wrong."""
        text = command.text
        for written, meant in self.replacements.items():
            text = text.replace(written, meant)
        assert "<" not in text, "a placeholder that the tests do not know"
        words = shlex.split(text, posix=command.language != "bat")
        while re.fullmatch(r"\w+=.*", words[0]):
            name, _, value = words.pop(0).partition("=")
            self.patch.setenv(name, home_for_tilde(value))
        program, *arguments = map(home_for_tilde, words)
        assert program in PROGRAMS, f"the tests do not know how to try '{program}'"
        PROGRAMS[program](self, arguments)


def home_for_tilde(word: str) -> str:
    """As a shell does it."""
    return str(Path(word).expanduser()) if word.startswith("~/") else word


def python(place: Place, words: Sequence[str]) -> None:
    if words[:3] == ["-m", "pytest", "-n"]:
        assert words[3].isdecimal() and all((ROOT / path).exists() for path in words[4:])
    elif words[0] == "-m":
        module(words[1], words[2:])
    elif words[0].startswith("-3."):  # of Windows' py
        python(place, words[1:])
    else:
        path, *arguments = words
        if (ROOT / path).parent == ROOT / "benchmarks":
            return run([sys.executable, str(ROOT / path), *arguments])
        assert (ROOT / path).parent == SCRIPTS
        script(place, ROOT / path, arguments)


def module(name: str, arguments: Sequence[str]) -> None:
    if name == "venv":
        arguments = ["--without-pip", *arguments]
    else:
        assert name.startswith("libraries.")
    run([sys.executable, "-m", name, *arguments])


def script(place: Place, path: Path, arguments: Sequence[str]) -> None:
    """Run the script's main in this process; but the service as a process."""
    main = runpy.run_path(str(path))["main"]
    overrides, flags = parse(arguments, Parameters, flags=flags_of(main))
    if path.stem == "deploymain" and "review" in flags:
        command = [sys.executable, str(path), *arguments, "--port=0"]
        with ServerProcess(command, ready="Open http://127.0.0.1:", env=os.environ):
            return
    if path.stem == "deploymain" and "stage" not in flags:
        Parameters.load(overrides)
        place.start_service(*arguments)
    else:
        main(Parameters.load(overrides), **flags)


def make(place: Place, words: Sequence[str]) -> None:
    assert all(re.fullmatch("[a-z-]+|ROOT=.+", word) for word in words)
    run(["make", "--dry-run", *words], cwd=ROOT)


def pip(place: Place, words: Sequence[str]) -> None:
    verb, *rest = words
    assert verb == "install"
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]["dynamic"]
    options = iter(rest)
    for word in options:
        if word in ("-r", "-c"):
            assert (ROOT / next(options)).is_file()
        elif found := re.fullmatch(r"\.(?:\[(.+)\])?", word):
            assert set((found[1] or "serve").split(",")) <= extras["optional-dependencies"].keys()
        else:
            assert word in ("--no-deps", "--editable", "pre-commit", "uv"), word


def docker(place: Place, words: Sequence[str]) -> None:
    match list(words):
        case ["build", "--tag", tag, "."]:
            assert tag.removeprefix(REGISTRY) == TAG and (ROOT / "Dockerfile").is_file()
        case ["build", "--file", name, "--tag", tag, "."]:
            assert (ROOT / name).is_file() and tag in images()
        case ["push", tag]:
            assert tag in images()
        case ["run", "--read-only", "--publish", ports, "--env", "SERVICE_KEY", "--volume", volume, tag]:
            dockerfile = (ROOT / "Dockerfile").read_text(encoding="utf-8")
            bundle, target, mode = volume.split(":")
            assert (tag, mode) == (TAG, "ro") and Path(bundle) == Layout(Parameters.load()).bundle.folder
            assert f"PARAMETERS_bundle={target} " in dockerfile
            assert f"\nEXPOSE {ports.rpartition(':')[2]}\n" in dockerfile
        case ["compose", "up"]:
            wanted = re.findall(r"\$\{(\w+):\?", (ROOT / "compose.yaml").read_text(encoding="utf-8"))
            assert wanted == ["BUNDLE", "KEY_FILE"] and all(name in os.environ for name in wanted)
        case _:
            raise AssertionError(f"the tests do not know docker {' '.join(words)}")


def kubernetes() -> list[dict]:
    """All manifests."""
    paths = sorted((ROOT / "resources" / "kubernetes").glob("*.yaml"))
    return [manifest for path in paths for manifest in yaml.safe_load_all(path.read_text(encoding="utf-8"))]


def images() -> set[str]:
    """The images that the manifests name."""
    return set(re.findall(r"'image': '([^']+)'", str(kubernetes())))


def kubectl(place: Place, words: Sequence[str]) -> None:
    """Files, objects, and folders on the volume, as far as they can be checked without a cluster."""
    objects = {(manifest["kind"].lower(), manifest["metadata"]["name"]): manifest for manifest in kubernetes()}
    objects |= {("job", name): manifest for (kind, name), manifest in objects.items() if kind == "rayjob"}
    match list(words):
        case ["apply", "-f", path] | ["replace", "--force", "-f", path]:
            assert list(yaml.safe_load_all((ROOT / path).read_text(encoding="utf-8")))
        case ["exec", pod, "--", "mkdir", "-p", folder]:
            assert ("pod", pod) in objects and folder.startswith("/data/")
        case ["cp", source, target]:
            pod, folder = target.split(":")
            assert ("pod", pod) in objects and Path(source).is_dir()
            assert Path(source).relative_to(Layout(Parameters.load()).root).parent == Path(folder).relative_to("/data")
        case ["create", "secret", "generic", name, key]:
            assert f"'secretName': '{name}'" in str(objects)
            assert key == "--from-literal=service_key=$SERVICE_KEY"
        case ["port-forward", service, ports]:
            (port,) = objects["service", service.removeprefix("service/")]["spec"]["ports"]
            assert ports.split(":") == [str(Parameters.load().port), str(port["port"])]
        case ["scale", name, "--replicas", number]:
            assert tuple(name.split("/")) in objects and number.isdecimal()
        case ["rollout", _, name] | ["logs", "--follow", name] | ["wait", "--for=condition=Ready", name]:
            assert tuple(name.split("/")) in objects
        case _:
            raise AssertionError(f"the tests do not know kubectl {' '.join(words)}")


def curl(place: Place, words: Sequence[str]) -> None:
    assert '"predictions"' in run(["curl", "--silent", "--show-error", "--fail-with-body", *words])


def mlflow(place: Place, words: Sequence[str]) -> None:
    from mlflow.cli import cli

    group, verb, *options = words
    cli.commands[group].commands[verb].make_context(verb, options)


def jupyter(place: Place, words: Sequence[str]) -> None:
    assert f"bin/jupyter {' '.join(words)}\n" in (ROOT / "Makefile").read_text(encoding="utf-8")


def pre_commit(place: Place, words: Sequence[str]) -> None:
    assert words == ["install"]
    ((hook,),) = (repository["hooks"] for repository in read_yaml(".pre-commit-config.yaml")["repos"])
    make(place, hook["entry"].split()[1:])


def read_yaml(name: str) -> dict:
    return yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))


def words_are(*expected: str) -> Callable[[Place, Sequence[str]], None]:
    """For commands that say nothing of the project but these words."""

    def check(place: Place, words: Sequence[str]) -> None:
        assert list(words) == list(expected)

    return check


def run(command: Sequence[str], **options: object) -> str:
    """What a process prints; AssertionError with what it says if it fails."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


PROGRAMS: dict[str, Callable[[Place, Sequence[str]], None]] = {
    "python": python,
    "python3": python,
    ".venv/bin/python": python,
    "py": python,
    "make": make,
    "pip": pip,
    "docker": docker,
    "kubectl": kubectl,
    "curl": curl,
    "mlflow": mlflow,
    "jupyter": jupyter,
    "pre-commit": pre_commit,
    "git": words_are("clone", "REPOSITORY", FOLDER),
    "cd": words_are(FOLDER),
    "source": words_are(".venv/bin/activate"),
    r".venv\Scripts\activate": words_are(),
}
