"""The command prompt: arguments, one-line errors, exit codes."""

import io
import sys

import pytest

from libraries.base import command
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


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["dnn"], "'dnn' is not understood"),
        (["--classifier"], "--classifier needs a value: --classifier svm"),
        (["--clasifier=dnn"], "did you mean classifier?"),
        (["--compare"], "there is no parameter 'compare'"),  # only scripts that offer the flag
        (["-v"], "'-v' is not understood"),
    ],
)
def test_bad_arguments(arguments: list[str], message: str) -> None:
    with pytest.raises(ParameterError) as error:
        command.parse(arguments, Parameters, flags=set())
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
    assert "Run it again to go on" in capsys.readouterr().err


def test_ctrl_c_is_answered_where_a_library_has_the_console(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def main(parameters: Parameters) -> None:
        monkeypatch.setattr(sys, "stderr", io.StringIO())  # as an interrupted contextlib.redirect_stderr leaves it
        raise KeyboardInterrupt

    assert outcome(main, []) == 130
    assert "Run it again to go on" in capsys.readouterr().err


def test_bad_parameter_has_its_own_exit_code() -> None:
    assert outcome(lambda parameters: None, ["--rf_mbSize", "0"]) == 2
