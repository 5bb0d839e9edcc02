"""The command prompt: arguments, one-line errors, exit codes."""

import errno
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from libraries.base import command
from libraries.base.console import ProgressBar, say, table
from libraries.base.errors import InputError, ParameterError
from PARAMETERS import Parameters


def outcome(main: object, arguments: list[str]) -> int:
    with pytest.raises(SystemExit) as exit_:
        command.run(main, Parameters, arguments)  # type: ignore[arg-type]
    return int(exit_.value.code)  # type: ignore[arg-type]


def test_overrides_and_flags_reach_main(capsys: pytest.CaptureFixture[str]) -> None:
    seen = {}

    def main(parameters: Parameters, *, compare: bool = False) -> None:
        seen.update(epochs=parameters.rf_maxEpochs, freeze=parameters.rf_boFreezeWeights, compare=compare)

    assert outcome(main, ["--rf_maxEpochs", "5", "--rf_boFreezeWeights", "--compare"]) == 0
    assert seen == {"epochs": 5, "freeze": True, "compare": True}
    assert "Done in" in capsys.readouterr().out


def test_flags_with_a_value_reach_main(capsys: pytest.CaptureFixture[str]) -> None:
    seen = {}

    def main(parameters: Parameters, *, folds: int | None = None, against: str | None = None) -> None:
        seen.update(folds=folds, against=against)

    assert outcome(main, ["--folds", "5", "--against=spring"]) == 0
    assert seen == {"folds": 5, "against": "spring"}
    assert outcome(main, []) == 0
    assert seen == {"folds": None, "against": None}
    for arguments, told in (
        (["--folds"], "--folds needs a whole number"),
        (["--folds", "few"], "--folds needs a whole number"),
        (["--folds", "-1"], "--folds needs a whole number"),
        (["--against"], "--against needs a value"),
        (["--against", "--folds", "5"], "--against needs a value"),
    ):
        capsys.readouterr()
        assert outcome(main, arguments) == 2
        assert told in capsys.readouterr().err
    assert outcome(main, ["--help"]) == 0
    assert "  --against NAME\n  --folds N\n" in capsys.readouterr().out


def test_a_verdict_is_the_exit_status(capsys: pytest.CaptureFixture[str]) -> None:
    def main(parameters: Parameters) -> None:
        raise command.Verdict(3)

    assert outcome(main, []) == 3
    told = capsys.readouterr()
    assert told.err == "" and "Done in" in told.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["dnn"], "unknown argument 'dnn'"),
        (["--classifier"], "--classifier needs a value, e.g. --classifier svm"),
        (["--clasifier=dnn"], "did you mean classifier?"),
        (["--compare"], "there is no parameter 'compare'"),  # only scripts that offer the flag
        (["-v"], "unknown argument '-v'"),
    ],
)
def test_bad_arguments(arguments: list[str], message: str) -> None:
    with pytest.raises(ParameterError) as error:
        command.parse(arguments, Parameters, flags={})
    assert message in str(error.value)


def test_errors_are_one_line_and_tracebacks_only_when_asked(capsys: pytest.CaptureFixture[str]) -> None:
    def main(parameters: Parameters) -> None:
        raise InputError("the folder is empty:\n  put images there")

    assert outcome(main, []) == 1
    error = capsys.readouterr().err
    assert error == "test_command.py: the folder is empty: put images there\n"
    assert outcome(main, ["--verbose"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_unexpected_errors_are_one_line_too(capsys: pytest.CaptureFixture[str]) -> None:
    def main(parameters: Parameters) -> None:
        raise RuntimeError("boom")

    assert outcome(main, []) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "RuntimeError: boom" in error


def test_ctrl_c_says_how_to_go_on(capsys: pytest.CaptureFixture[str]) -> None:
    def main(parameters: Parameters) -> None:
        raise KeyboardInterrupt

    assert outcome(main, []) == 130
    assert "Run it again to continue" in capsys.readouterr().err


def test_ctrl_c_is_answered_where_a_library_has_the_console(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def main(parameters: Parameters) -> None:
        monkeypatch.setattr(sys, "stderr", io.StringIO())  # as an interrupted contextlib.redirect_stderr leaves it
        raise KeyboardInterrupt

    assert outcome(main, []) == 130
    assert "Run it again to continue" in capsys.readouterr().err


def test_bad_parameter_has_its_own_exit_code() -> None:
    assert outcome(lambda parameters: None, ["--rf_mbSize", "0"]) == 2


def test_errors_of_files_and_of_memory_are_explained(capsys: pytest.CaptureFixture[str]) -> None:
    def message(error: Exception) -> str:
        def main(parameters: Parameters) -> None:
            raise error

        assert outcome(main, []) == 1
        return capsys.readouterr().err.removeprefix("test_command.py: ").removesuffix("\n")

    denied = PermissionError(errno.EACCES, os.strerror(errno.EACCES), "/data/proc/a.csv")
    assert message(denied).startswith("/data/proc/a.csv cannot be used: permission denied; give your user access")
    assert message(OSError(errno.ENOSPC, "No space left")) == "the disk is full; free some space and run again"
    assert message(MemoryError()).startswith("out of memory")
    assert message(ConnectionResetError(errno.ECONNRESET, "reset")).startswith("unexpected ConnectionResetError")


@pytest.mark.parametrize(
    ("encoding", "shown"),
    [
        ("utf-8", "58.9–65.1% → Grüße 東京 \\udcff"),
        ("cp1252", "58.9–65.1% -> Grüße \\u6771\\u4eac \\udcff"),
        ("cp932", "58.9-65.1% → Gr\\xfc\\xdfe 東京 \\udcff"),
        ("ascii", "58.9-65.1% -> Gr\\xfc\\xdfe \\u6771\\u4eac \\udcff"),
    ],
)
def test_consoles_of_few_characters_show_the_others_in_another_way(
    monkeypatch: pytest.MonkeyPatch, encoding: str, shown: str
) -> None:
    text = "58.9–65.1% → Grüße 東京 \udcff"

    def main(parameters: Parameters) -> None:
        print(text)  # noqa: T201
        raise InputError(text)

    out, err = (io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="strict") for _ in range(2))
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    assert outcome(main, []) == 1
    assert out.buffer.getvalue().decode(encoding) == shown + "\n"  # type: ignore[attr-defined]
    assert err.buffer.getvalue().decode(encoding) == f"test_command.py: {shown}\n"  # type: ignore[attr-defined]


@pytest.mark.parametrize("encoding", ["utf-8", "cp1252", "ascii"])
def test_columns_are_aligned_as_they_are_shown(monkeypatch: pytest.MonkeyPatch, encoding: str) -> None:
    def main(parameters: Parameters) -> None:
        print(table("T", ["", "images"], [("cat", 1), ("\u6771\u4eac", 20), ("Gr\xfc\xdfe", 300)]))  # noqa: T201

    out = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="strict")
    monkeypatch.setattr(sys, "stdout", out)
    assert outcome(main, []) == 0
    _, *lines, _ = out.buffer.getvalue().decode(encoding).splitlines()  # type: ignore[attr-defined]
    assert len(lines) == 5 and len({len(line) for line in lines}) == 1


@pytest.mark.parametrize("encoding", ["cp932", "ascii"])
def test_a_pipe_of_few_characters_ends_no_script(tmp_path: Path, encoding: str) -> None:
    script = tmp_path / "script.py"
    lines = [
        "from libraries.base.command import run",
        "from libraries.base.console import ProgressBar, say",
        "from PARAMETERS import Parameters",
        "def main(parameters):",
        "    with ProgressBar('Größe'):",
        "        say('58.9–65.1%, ☃')",
        "run(main, Parameters)",
    ]
    script.write_text("\n".join(lines), encoding="utf-8")
    environment = {**os.environ, "PYTHONIOENCODING": encoding, "PYTHONUTF8": "0", "LC_ALL": "C"}
    done = subprocess.run([sys.executable, script], capture_output=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == b"58.9-65.1%, \\u2603"
    assert done.stderr == b""


def test_scripts_run_without_any_console(monkeypatch: pytest.MonkeyPatch) -> None:
    """As under pythonw.exe, or a service of Windows."""
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)

    def main(parameters: Parameters) -> None:
        with ProgressBar("Counting", total=1) as bar:
            bar.update()
        say("done")
        print("done")  # noqa: T201

    assert outcome(main, []) == 0


def test_a_parameter_that_was_taken_out_of_the_file_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    def main(parameters: Parameters) -> None:
        parameters.noLongerThere  # type: ignore[attr-defined]  # noqa: B018

    assert outcome(main, []) == 1
    assert "PARAMETERS.py has no parameter 'noLongerThere'" in capsys.readouterr().err
