"""The pages of the documentation as the tests see them: fenced blocks, commands, links, headings."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from tests.conftest import ROOT

# languages of blocks with commands, and what each command begins with
PROMPTS = {"bash": "", "sh": "", "bat": "", "console": "$ "}
OTHERS = {"python", "mermaid", "text", "toml"}
# code in a sentence that begins so is a command
PROGRAMS = ("python", "make", "pip", "docker", "mlflow", "jupyter", "curl", "kubectl")


@dataclass(frozen=True)
class Block:
    """Text between ``` and ```, and the line its text begins at."""

    language: str
    text: str
    line: int


@dataclass(frozen=True)
class Command:
    """One line to type."""

    text: str
    language: str
    where: str


@dataclass(frozen=True)
class Page:
    """One Markdown file."""

    path: Path

    @property
    def name(self) -> str:
        """Its path in the project."""
        return self.path.relative_to(ROOT).as_posix()

    @cached_property
    def text(self) -> str:
        return self.path.read_text(encoding="utf-8")

    @cached_property
    def blocks(self) -> list[Block]:
        """All fenced blocks."""
        found = re.finditer(r"^```(.*)\n((?:.*\n)*?)```$", self.text, re.MULTILINE)
        return [Block(m[1], m[2], self.text.count("\n", 0, m.start(2)) + 1) for m in found]

    @cached_property
    def prose(self) -> str:
        """The text without fenced blocks."""
        return re.sub(r"^```.*\n(?:.*\n)*?```$", "", self.text, flags=re.MULTILINE)

    @cached_property
    def code(self) -> list[str]:
        """Code in sentences, each on one line."""
        return [" ".join(found.split()) for found in re.findall(r"`([^`]+)`", self.prose)]

    def commands(self) -> Iterator[Command]:
        """Every line of the blocks that hold commands, and the commands in sentences."""
        for block in self.blocks:
            if block.language in PROMPTS:
                prompt, text = PROMPTS[block.language], block.text.replace("\\\n", " ")
                lines = (line.removeprefix(prompt) for line in text.splitlines() if line.startswith(prompt))
                for one in (command for line in lines for command in line.split(" && ")):
                    if one.strip() and not one.startswith("#"):
                        yield Command(one, block.language, f"{self.name}:{block.line}")
        for text in self.code:
            if text.startswith(tuple(f"{program} " for program in PROGRAMS)):
                yield Command(text, "bash", self.name)

    def links(self) -> list[str]:
        """The targets of all links and pictures."""
        return re.findall(r"\]\(([^()\s]+)\)", re.sub(r"`[^`]*`", "", self.prose))

    def anchors(self) -> set[str]:
        """What a link to this page may have after '#', as GitHub makes it from the headings."""
        titles = re.findall(r"^#+ (.*)$", self.prose, re.MULTILINE)
        return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
