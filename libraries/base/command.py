"""The command line that all scripts share: arguments, help, one-line errors and Ctrl-C."""

import inspect
import re
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from libraries.base import stages
from libraries.base.console import prepare_console
from libraries.base.errors import ParameterError, PipelineError
from libraries.base.file_system import file_error
from libraries.base.settings import Settings

_REFINE = ("torch", "torchvision", "timm", "huggingface_hub", "onnxscript")  # of requirements-refine.txt


class Verdict(Exception):
    """The work is done, and its outcome is an exit status that others act on.

    Attributes:
        status: 3 to 125; 0 to 2 have their meaning for all scripts.
    """

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


def run(main: Callable[..., None], parameters: type[Settings], arguments: Sequence[str] | None = None) -> None:
    """Run a script's `main(parameters, **flags)` and exit: 0 done, 1 an error, 2 a bad argument, 130 Ctrl-C.

    Flags are main's keyword-only arguments: `def main(parameters, *, compare: bool = False)` adds `--compare`; one that
    is `int | None` or `str | None` takes a value. Every script also accepts `--help` and `--verbose` (tracebacks).

    A `Verdict` that main raises ends the script with its exit status.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    script = Path(inspect.getfile(main)).name
    flags = flags_of(main)
    verbose = "--verbose" in arguments
    sys.exit(_outcome(main, parameters, arguments, script=script, flags=flags, verbose=verbose))


def _outcome(
    main: Callable[..., None],
    parameters: type[Settings],
    arguments: list[str],
    *,
    script: str,
    flags: Mapping[str, type],
    verbose: bool,
) -> int:
    started = time.monotonic()
    errors = sys.stderr  # Ctrl-C may arrive while a library has sys.stderr replaced
    prepare_console()
    try:
        if "--help" in arguments or "-h" in arguments:
            print(usage(main, parameters, script=script, flags=flags))  # noqa: T201
            return 0
        overrides, given = parse(arguments, parameters, flags={**flags, "verbose": bool})
        given.pop("verbose", None)
        main(parameters.load(overrides), **given)
        print(f"Done in {time.monotonic() - started:.1f} s.")  # noqa: T201
        return 0
    except Verdict as verdict:
        print(f"Done in {time.monotonic() - started:.1f} s.")  # noqa: T201
        return verdict.status
    except PipelineError as error:
        if verbose:
            traceback.print_exc(file=errors)
        print(f"{script}: {_one_line(str(error))}", file=errors)
        return 2 if isinstance(error, ParameterError) else 1
    except BrokenPipeError:  # the reader of our output, such as `head`, has closed the pipe
        sys.stdout = None
        return 1
    except KeyboardInterrupt:
        print(f"\n{script}: stopped. Run it again to continue.", file=errors)
        return 130
    except Exception as error:
        if verbose:
            raise
        print(f"{script}: {_explained(error)}", file=errors)
        return 1


def _explained(error: Exception) -> str:
    """The error as one line: a file, disk or memory problem in plain words, anything else as unexpected."""
    if isinstance(error, OSError) and (of_file := file_error(error)):
        return _one_line(str(of_file))
    if isinstance(error, AttributeError) and isinstance(error.obj, Settings):
        return f"PARAMETERS.py has no parameter '{error.name}', which this script needs: add it again"
    if isinstance(error, ModuleNotFoundError) and error.name in _REFINE:
        return (
            f"{error.name} is not installed, which 'dnn', 'svmDnnRefined', networks besides EfficientNet-Lite and GPUs "
            "need: run make setup-refine, or pip install -r requirements-refine.txt"
        )
    if isinstance(error, MemoryError):
        return "out of memory: close other programs, or use a machine with more memory"
    return f"unexpected {type(error).__name__}: {_one_line(str(error))} (run again with --verbose to see where)"


def flags_of(main: Callable[..., None]) -> dict[str, type]:
    """The names of main's keyword-only arguments, with the type of their value; a bool has none to be written."""
    flags = (p for p in inspect.signature(main).parameters.values() if p.kind is p.KEYWORD_ONLY)
    return {p.name: p.annotation if p.annotation is bool else get_args(p.annotation)[0] for p in flags}


def parse(
    arguments: Sequence[str], parameters: type[Settings], *, flags: Mapping[str, type]
) -> tuple[dict[str, str], dict[str, Any]]:
    """Split `--name value`, `--name=value` and `--flag` into overrides and flags.

    Raises:
        ParameterError: an unknown name, a value without a name, or a name without a value.
    """
    overrides: dict[str, str] = {}
    given: dict[str, Any] = {}
    rest = list(arguments)
    while rest:
        argument = rest.pop(0)
        if not argument.startswith("--"):
            raise ParameterError(f"unknown argument '{argument}': write parameters as --name value (--help lists all)")
        name, equals, value = argument[2:].partition("=")
        if name in flags and flags[name] is bool and not equals:
            given[name] = True
            continue
        if name in flags and flags[name] is not bool:
            given[name] = _value(name, value if equals else rest.pop(0) if rest else "", flags[name])
            continue
        parameters.check_name(name)
        if not equals:
            field = parameters.model_fields[parameters.former_names().get(name, name)]
            if rest and not rest[0].startswith("--"):
                value = rest.pop(0)
            elif field.annotation is bool:
                value = "true"
            else:
                raise ParameterError(f"--{name} needs a value, e.g. --{name} {field.default}")
        overrides[name] = value
    return overrides, given


def _value(name: str, text: str, kind: type) -> Any:
    """The value of a flag."""
    if kind is int and re.fullmatch(r"\d{1,9}", text):
        return int(text)
    if kind is int or not text or text.startswith("--"):
        raise ParameterError(f"--{name} needs {'a whole number' if kind is int else 'a value'} after it")
    return text


def _shown(flags: Mapping[str, type]) -> list[str]:
    """Flags as they are written."""
    words = {bool: "", int: " N", str: " NAME"}
    return [f"--{flag}{words[flags[flag]]}" for flag in sorted(flags)]


def usage(main: Callable[..., None], parameters: type[Settings], *, script: str, flags: Mapping[str, type]) -> str:
    """The text of `--help`: what the script does, its flags, every parameter."""
    described = "".join(f"  {flag}\n" for flag in _shown(flags))
    return (
        f"usage: python scripts/{script} [--name value ...]\n\n{_about(main)}\n\n{described}"
        f"  --verbose  (show where an error came from)\n\n{parameters.help_text()}"
    )


def reference(parameters: type[Settings], scripts: Mapping[str, Callable[..., None]]) -> str:
    """The `--help` text of all scripts, as one Markdown page.

    Args:
        scripts: each script's main, by the script's name without `.py`.
    """
    tables = parameters.reference()
    common = [f"## {title}\n\n{table}" for title, table in tables.items() if title not in scripts]
    sections = []
    for name, main in scripts.items():
        call = " ".join(
            [f"python scripts/{name}.py [--name value ...]", *(f"[{flag}]" for flag in _shown(flags_of(main)))]
        )
        own = f"\n\n{tables[name]}" if name in tables else ""
        sections.append(f"## {name}\n\n```text\n{call}\n\n{_about(main)}\n```{own}")
    return "\n\n".join([*common, *sections]) + "\n"


def _about(main: Callable[..., None]) -> str:
    """The docstring of main's script, and what the step reads and writes."""
    about = inspect.cleandoc(main.__globals__.get("__doc__") or main.__doc__ or "")
    stage = stages.stage_of(Path(inspect.getfile(main)).stem)
    return about if stage is None else f"{about}\n\n{stages.described(stage)}"


def _one_line(text: str) -> str:
    return " ".join(text.split())
