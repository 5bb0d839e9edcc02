"""Which texts can be labels: each is a folder name on every system, and nothing more than that."""

import unicodedata
from collections.abc import Iterable

from libraries.base.errors import InputError
from libraries.base.file_system import is_reserved
from libraries.base.names import nfc

MAX_LABEL_BYTES = 100


def check_label(label: str) -> str:
    """The label in Unicode normal form C.

    Raises:
        InputError: it could leave its folder, or is no file name on some system; says which rule it breaks.
    """
    label = nfc(label)
    if problem := _problem(label):
        raise InputError(f"label {label!r} cannot be a folder name: {problem}; choose another name")
    return label


def _problem(label: str) -> str | None:
    if not label or label in (".", ".."):
        return "it is empty or only dots"
    if any(c in '/\\:*?"<>|' for c in label):
        return 'it holds one of / \\ : * ? " < > |'
    if any(unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp") for c in label):
        return "it holds control characters"
    if label != label.strip() or label.endswith("."):
        return "it begins or ends with a blank, or ends with a dot"
    if label.startswith("."):
        return "it begins with a dot, as hidden files do"
    if is_reserved(label):
        return "Windows reserves it"
    if len(label.encode()) > MAX_LABEL_BYTES:
        return f"it is longer than {MAX_LABEL_BYTES} bytes"
    return None


def check_labels(labels: Iterable[str]) -> None:
    """Check every label, and that no two are one folder on systems that do not tell upper from lower case."""
    seen: dict[str, str] = {}
    for label in labels:
        other = seen.setdefault(check_label(label).casefold(), label)
        if other != label and nfc(other) == nfc(label):
            forms = f"{other!a} and {label!a}"
            raise InputError(f"labels {forms} are '{nfc(label)}' in two forms of Unicode: rename one, or merge them")
        if other != label:
            raise InputError(f"labels {other!r} and {label!r} differ only in case: rename one, or merge them")
