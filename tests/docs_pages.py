"""What stands on the pages: README.md, CONTRIBUTING.md and docs/*.md.

A command is a line of a ```bash block, or stands in `backticks` and begins as commands do::

    for command in commands(ROOT / "docs" / "data.md"):
        print(command.page, command.line, command.text)
"""

import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
STORY = ("data", "pretraining", "finetuning", "checkpoints")  # each page goes on with what the one before it made
DOCS = [ROOT / "docs" / f"{name}.md" for name in STORY]
DOCS += sorted(set((ROOT / "docs").glob("*.md")) - set(DOCS))
PAGES = [*DOCS, ROOT / "README.md", ROOT / "CONTRIBUTING.md"]

SCRIPTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
STARTERS = {"apt", "bash", "curl", "dask", "docker", "git", "mpirun", "pip", "python", "python3", "sbatch", "source"}
STARTERS |= {"torchrun", ".venv/serving/bin/python", *SCRIPTS}

BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"`((?:[^`\n]|\n(?!\n))+)`")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
ASSIGNMENT = re.compile(r"([A-Za-z_]\w*)=(.*)")


class Command(NamedTuple):
    page: str
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}: {self.text}"


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path) -> Iterator[tuple[int, str, str]]:
    """Yield (line, language, text) of the fenced blocks."""
    text = page.read_text(encoding="utf8")
    for found in BLOCK.finditer(text):
        yield text.count("\n", 0, found.start()) + 2, found[1], found[2]


def prose(page: Path) -> str:
    """Return the text with every block emptied, so that lines keep their numbers."""
    return BLOCK.sub(lambda found: "\n" * found[0].count("\n"), page.read_text(encoding="utf8"))


def codes(page: Path) -> Iterator[tuple[int, str]]:
    """Yield (line, text) of what stands in backticks."""
    text = prose(page)
    for found in CODE.finditer(text):
        yield text.count("\n", 0, found.start()) + 1, found[1].replace("\n", " ")


def commands(page: Path) -> Iterator[Command]:
    """Yield the commands in their order on the page, those of blocks first."""
    for line, language, text in blocks(page):
        if language == "bash":
            joined = re.sub(r" *\\\n *", " ", text)  # the line is that of the block where it has continuations
            for number, each in enumerate(joined.splitlines()):
                if shlex.split(each, comments=True):
                    yield Command(name_of(page), line + number, each)
    for line, text in codes(page):
        if is_command(text):
            yield Command(name_of(page), line, text)


def is_command(text: str) -> bool:
    words = text.split()
    while words and ASSIGNMENT.fullmatch(words[0]):
        words.pop(0)
    return len(words) > 1 and words[0] in STARTERS


def split_words(text: str) -> tuple[dict[str, str], list[str]]:
    """Return (variables before it, words) of a simple command."""
    words, variables = shlex.split(text, comments=True), {}
    while words and (found := ASSIGNMENT.fullmatch(words[0])):
        variables[found[1]] = found[2]
        words.pop(0)
    return variables, words


def anchor_of(heading: str) -> str:
    """Return the anchor that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def anchors(page: Path) -> set[str]:
    return {anchor_of(heading) for heading in re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)}


def section_of(page: Path, anchor: str) -> str:
    """Return the text below a heading of the second level."""
    parts = re.split(r"^## (.+)$", page.read_text(encoding="utf8"), flags=re.MULTILINE)
    return dict(zip(map(anchor_of, parts[1::2]), parts[2::2], strict=True))[anchor]


def rows(page: Path, anchor: str) -> list[list[str]]:
    """Return the cells of the table below a heading, without the table's head."""
    table = [line for line in section_of(page, anchor).splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table[2:]]
