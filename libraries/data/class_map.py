"""Classes other than the folders: merged, split, renamed or left out by a table, without moving an image."""

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import Path

from libraries.base.errors import InputError
from libraries.base.file_system import nfc
from libraries.base.text import table_cells
from libraries.data.checking import Checked
from libraries.data.class_folders import ClassFolders, check_label, check_labels

MOST_ROWS = 10_000
_HEADER = ["images", "class"]
_FORM = ",".join(_HEADER)


@dataclass(frozen=True)
class ClassMap:
    """Which class an image is of, by its path.

    Attributes:
        rules: pattern and class, the first that fits counts; without any, each folder is a class. A pattern is that of
            a path that begins with the class folder; a name alone is that of such a folder. No class: left out.
        folders: of the images.
    """

    rules: tuple[tuple[str, str], ...]
    folders: ClassFolders

    @classmethod
    def read(cls, path: Path | None, folders: ClassFolders) -> "ClassMap":
        """The map in a table, CSV or TSV with the header images,class.

        Args:
            path: None: there is none.

        Raises:
            MissingInput, InputError: it is missing or wrong; names the line.
        """
        if path is None:
            return cls((), folders)
        lines = table_cells(path, what="the table of classes")
        first, header = next(lines, (1, []))
        if [cell.strip().lower() for cell in header] != _HEADER:
            raise InputError(f"{path}, line {first}: expected the header {_FORM}")
        rules: list[tuple[str, str]] = []
        for line, cells in lines:
            if len(cells) != 2 or not cells[0].strip():
                raise InputError(f"{path}, line {line}: expected two cells, {_FORM}, the second may be empty")
            if len(rules) == MOST_ROWS:
                raise InputError(f"{path} has more than {MOST_ROWS:,} rows: use patterns such as cat/siamese/*")
            pattern, label = (nfc(cell.strip()) for cell in cells)
            if label:
                try:
                    check_label(label)
                except InputError as error:
                    raise InputError(f"{path}, line {line}: {error}") from None
            rules.append((pattern.replace("\\", "/").rstrip("/"), label))
        try:
            check_labels({label for _, label in rules if label})
        except InputError as error:
            raise InputError(f"{path}: {error}") from None
        return cls(tuple(rules), folders)

    def label(self, path: str) -> str:
        """The class of an image; empty: it is left out, or in the pool."""
        folder = self.folders.label(path)
        if not folder or not self.rules:
            return folder
        of_folder, rest = _rules_for(self.rules, folder)
        if not rest:
            return folder if of_folder is None else of_folder
        whole = nfc(f"{folder}/{self.folders.inside(path)}")
        for pattern, label in self.rules:
            if pattern == folder or fnmatchcase(whole, pattern):
                return label
        return folder

    def applied(self, checked: Checked) -> tuple[Checked, list[str], list[str]]:
        """The images with their classes, without those that are left out; the paths of these; and lines about both.

        Raises:
            InputError: fewer than two classes are left.
        """
        if not self.rules:
            return checked, [], []
        paths = [example.path for example in checked.examples]
        left_out = [path for path in paths if not self.label(path)]
        kept = checked.without({*left_out})
        labelled = [replace(example, label=self.label(example.path)) for example in kept.examples]
        names = sorted({example.label for example in labelled})
        if len(names) < 2:
            raise InputError(f"the table of classes leaves {names[0] if names else 'none'}: two classes are needed")
        lines = [self._explained(pattern) for pattern in self.unused(paths)]
        lines.append(f"By the table of classes: {len(names)} classes, {len(left_out):,} images left out")
        return kept._replace(examples=labelled), left_out, lines

    def _explained(self, pattern: str) -> str:
        """Why a row does nothing; raises InputError for a name that is nearly that of a folder."""
        near = difflib.get_close_matches(pattern, self.folders.by_label, n=1, cutoff=0.8)
        if near and pattern not in self.folders.by_label and not any(sign in pattern for sign in "/*?["):
            raise InputError(f"the table of classes names '{pattern}', which is no folder: did you mean '{near[0]}'?")
        return f"Warning: '{pattern}' in the table of classes fits no image that the rows before it have left"

    def unused(self, paths: Iterable[str]) -> list[str]:
        """The patterns that fit no image, or only such as rows before them take."""
        whole = {nfc(f"{self.folders.label(path)}/{self.folders.inside(path)}") for path in paths}
        left, unused = whole, list[str]()
        for pattern, _ in self.rules:  # each takes what those before have left
            rest = {path for path in left if path.partition("/")[0] != pattern and not fnmatchcase(path, pattern)}
            if len(rest) == len(left):
                unused.append(pattern)
            left = rest
        return unused

    def folders_of(self, labels: Mapping[str, str]) -> dict[str, str]:
        """The folder of each class that is one folder and no more: where an image goes that gets this class.

        Args:
            labels: the class of each image by its path.
        """
        found: dict[str, set[str]] = {}
        for path, label in labels.items():
            found.setdefault(label, set()).add(self.folders.label(path))
        of_folder: dict[str, set[str]] = {}
        for path, label in labels.items():
            of_folder.setdefault(self.folders.label(path), set()).add(label)
        return {
            label: next(iter(folders))
            for label, folders in found.items()
            if len(folders) == 1 and len(of_folder[next(iter(folders))]) == 1
        }


@lru_cache(maxsize=4096)
def _rules_for(rules: tuple[tuple[str, str], ...], folder: str) -> tuple[str | None, bool]:
    """The class of a folder that is mapped as a whole, and whether a pattern for some of its images comes before."""
    for pattern, label in rules:
        if pattern == folder:
            return label, False
        if "/" in pattern or "*" in pattern or "?" in pattern or "[" in pattern:
            return None, True
    return None, False
