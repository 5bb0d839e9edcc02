"""Base class of Parameters: load from defaults, environment and command line; check; explain."""

import difflib
import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args, get_origin

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError, model_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, SettingsConfigDict

from libraries.base.errors import ParameterError
from libraries.base.file_system import is_reserved, nfc, on_disk
from libraries.base.stages import Subject

ENVIRONMENT_PREFIX = "PARAMETERS_"


def _not_empty(text: Any) -> Any:
    if text == "":  # would mean the current folder
        raise ValueError("it is empty")
    return text


def _absolute(path: Path) -> Path:
    try:
        if path.parts[:1] == ("~",) and os.environ.get("HOME") == "":  # it would mean the root of the file system
            raise RuntimeError
        path = path.expanduser().absolute()
        return Path(path.anchor, on_disk(Path(path.anchor), path.relative_to(path.anchor).as_posix()))
    except RuntimeError:  # in a container, for instance
        raise ValueError("this user has no home folder for '~'") from None


UserPath = Annotated[Path, BeforeValidator(_not_empty), AfterValidator(_absolute)]
"""A path as a person types it: `~`, relative paths, and names in another form of Unicode than the disk's."""

Name = Annotated[str, BeforeValidator(lambda value: nfc(value) if isinstance(value, str) else value)]
"""A name, in Unicode form C."""


def _folder_name(name: str) -> str:
    if is_reserved(name):
        raise ValueError("Windows reserves it")
    if name.endswith((".", " ")):
        raise ValueError("Windows allows no names that end with a dot or space")
    return name


FolderName = Annotated[Name, AfterValidator(_folder_name)]
"""A name, in Unicode form C, that is not a device of Windows and has no ending that Windows forbids."""


def group(title: str, *, matters_to: Subject | tuple[()] | None = None) -> Callable[..., Any]:
    """A factory for parameters that `--help` lists under `title`: `factory(default, description, **limits)`.

    Limits are pydantic's (`ge`, `le`, `gt`, `lt`, `min_length`, `pattern` …); `formerly` lists old names that are
    still accepted; `private` values are never written to files meant for others.

    Args:
        matters_to: default for the group's parameters: a subject of `stages`, or () for none. None: each parameter
            must say, so that none is forgotten.
    """
    usual = matters_to

    def parameter(
        default: Any,
        description: str,
        *,
        matters_to: Subject | Sequence[Subject] | None = usual,
        formerly: Sequence[str] = (),
        private: bool = False,
        **limits: Any,
    ) -> Any:
        if matters_to is None:
            raise TypeError(f"the parameter '{description}' must say what it matters to")
        subjects = [matters_to] if isinstance(matters_to, str) else list(matters_to)
        extra: dict[str, Any] = {
            "group": title,
            "matters_to": subjects,
            "formerly": list(formerly),
            "private": private,
        }
        return Field(default, description=description, json_schema_extra=extra, **limits)

    return parameter


class Settings(BaseSettings):
    """Parameters with types and limits; each can be overridden by environment variable and on the command line.

    The order of precedence is: command line, environment (`PARAMETERS_<name>`), the default written in the class.
    """

    model_config = SettingsConfigDict(
        env_prefix=ENVIRONMENT_PREFIX,
        case_sensitive=True,
        extra="forbid",
        frozen=True,
        validate_default=True,
        enable_decoding=False,
    )

    @model_validator(mode="before")
    @classmethod
    def _understand(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Map former names to current ones, and text from a command line to lists and None."""
        former = cls.former_names()
        values = {former.get(name, name): value for name, value in values.items()}
        return {
            n: _parsed(v, cls.model_fields[n].annotation) if n in cls.model_fields else v for n, v in values.items()
        }

    @classmethod
    def former_names(cls) -> dict[str, str]:
        """Old names that are still accepted: former name → current name."""
        return {str(old): name for name, field in cls.model_fields.items() for old in _extra(field)["formerly"]}

    @classmethod
    def load(cls, overrides: Mapping[str, Any] | None = None) -> Self:
        """The parameters of one run.

        Raises:
            ParameterError: an unknown name or a bad value, from whichever source, in one line.
        """
        overrides = dict(overrides or {})
        from_environment = {
            name.removeprefix(ENVIRONMENT_PREFIX): text
            for name, text in os.environ.items()
            if name.startswith(ENVIRONMENT_PREFIX)
        }
        for name in (*overrides, *from_environment):
            cls.check_name(name)
        former = cls.former_names()
        given = {**from_environment, **overrides}
        values = {former.get(name, name): value for name, value in given.items()}
        try:
            return cls(**values)
        except ValidationError as error:
            raise ParameterError(cls._explain(error)) from error

    @classmethod
    def subjects(cls) -> dict[str, set[Subject]]:
        """What each parameter matters to, without those that matter to nothing."""
        all_subjects = {name: set(_extra(field)["matters_to"]) for name, field in cls.model_fields.items()}
        return {name: subjects for name, subjects in all_subjects.items() if subjects}

    def mattering(self) -> dict[str, Any]:
        """The values of all parameters that affect results."""
        return {name: getattr(self, name) for name in self.subjects()}

    def portable(self) -> dict[str, Any]:
        """All values that make sense on another machine, as JSON values: no paths, addresses or private ones."""
        places = {name for name, value in self if isinstance(value, Path) or "://" in str(value)}
        private = {name for name, field in type(self).model_fields.items() if _extra(field)["private"]}
        return self.model_dump(mode="json", exclude=places | private)

    @classmethod
    def check_name(cls, name: str) -> None:
        """Raise ParameterError with the nearest known name if there is no such parameter."""
        known = [*cls.model_fields, *cls.former_names()]
        if name in known:
            return
        by_lower = {k.lower(): k for k in known}
        near = difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=0.5)
        hint = f"did you mean {by_lower[near[0]]}? " if near else ""
        raise ParameterError(f"there is no parameter '{name}': {hint}(--help lists all)")

    @classmethod
    def _explain(cls, error: ValidationError) -> str:
        """The first problem as one line: parameter, value, rule."""
        problem = error.errors()[0]
        name = str(problem["loc"][0]) if problem["loc"] else ""
        message = problem["msg"].removeprefix("Value error, ")
        if name not in cls.model_fields:
            return message
        rule = rule_of(cls.model_fields[name])
        return f"parameter {name} = {_shown(problem['input'])} is invalid: {message} (expected: {rule})"

    @classmethod
    def help_text(cls) -> str:
        """Every parameter with its rule, default and description, by group."""
        lines: list[str] = []
        title = None
        for name, field in cls.model_fields.items():
            if _extra(field)["group"] != title:
                title = _extra(field)["group"]
                lines += ["", f"{title}:"]
            lines.append(f"  --{name}  ({rule_of(field)}; default: {_shown(field.default)})")
            lines.append(f"      {field.description}")
        return "\n".join(lines).lstrip("\n")

    @classmethod
    def reference(cls) -> dict[str, str]:
        """The same as `help_text`, but a Markdown table for each group, identical on every machine."""
        tables: dict[str, list[str]] = {}
        project = Path(inspect.getfile(cls)).parent
        for name, field in cls.model_fields.items():
            default = field.default
            if isinstance(default, Path):  # paths below the project are shown from there
                default = (default.relative_to(project) if default.is_relative_to(project) else default).as_posix()
            known_as = "".join(f"; also accepted: `{old}`" for old in _extra(field)["formerly"])
            cells = [rule_of(field), _shown(default) or "empty", f"{field.description}{known_as}"]
            rows = tables.setdefault(
                _extra(field)["group"], ["| parameter | values | default | what it does |", "|---|---|---|---|"]
            )
            rows.append(" | ".join(["", f"`{name}`", *map(_in_a_table, cells), ""]).strip())
        return {title: "\n".join(rows) for title, rows in tables.items()}


def rule_of(field: FieldInfo) -> str:
    """The values that a parameter accepts, in words."""
    return _described(field.annotation, field.metadata)


def _described(kind: Any, metadata: Sequence[Any] = ()) -> str:
    words = {int: "whole number", float: "number", str: "text", bool: "true | false", Path: "path", type(None): "none"}
    arguments = get_args(kind)
    if get_origin(kind) is Annotated:
        return _described(arguments[0], arguments[1:])
    if not arguments:
        text = words[kind]
    elif get_origin(kind) is Literal:
        text = " | ".join(map(str, arguments))
    elif get_origin(kind) is tuple:
        text = f"list of: {_described(arguments[0])}"
    else:
        text = " | ".join(_described(a) for a in arguments)
    limits = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below", "pattern": "matching"}
    for limit in (m for data in metadata for m in getattr(data, "metadata", [data])):  # Annotated nests FieldInfo
        bounds = {words: getattr(limit, key) for key, words in limits.items() if hasattr(limit, key)}
        text += "".join(f", {words} {_shown(value)}" for words, value in bounds.items())
    return text


def _in_a_table(text: str) -> str:
    """Plain text as a cell of a Markdown table; text between backticks is code already."""
    parts = text.replace("|", r"\|").split("`")
    return "`".join(part if i % 2 else part.replace("<", "&lt;").replace("*", r"\*") for i, part in enumerate(parts))


def _extra(field: FieldInfo) -> dict[str, Any]:
    extra = field.json_schema_extra
    return (
        extra
        if isinstance(extra, dict)
        else {"group": "Parameters", "matters_to": [], "formerly": [], "private": False}
    )


def _parsed(value: Any, kind: Any) -> Any:
    """Text as typed on a command line: 'none' is None; commas, or brackets, make a list where one is expected."""
    if not isinstance(value, str):
        return value
    text = value.strip()
    kinds = [kind, *get_args(kind)]
    if text.lower() == "none" and type(None) in kinds:
        return None
    choices = [choice for k in kinds if get_origin(k) is Literal for choice in get_args(k)]
    if choices and not any(isinstance(choice, str) for choice in choices):
        return {str(choice): choice for choice in choices}.get(text, text)
    if not any(get_origin(k) is tuple for k in kinds) or text in [a for k in kinds for a in get_args(k)]:
        return text
    return [part.strip() for part in text.strip("[]()").split(",") if part.strip()]


def _shown(value: Any) -> str:
    """A value as a user would type it."""
    if isinstance(value, tuple | list):
        return ",".join(_shown(v) for v in value) or "empty"
    if isinstance(value, float):
        return f"{value:g}"
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)
