"""The fenced blocks of the documentation: collected from the pages, and run as a reader would run them.

Every block of commands (`bash`) or of Python is run by `tests/docs/test_page_blocks.py`, in the order of its page and
in a folder of the page's own. What a test has to know beyond the block stands in an HTML comment on the line before
it, which a reader of the page does not see:

    <!-- not run: needs a Slurm cluster -->     the reason is required; the commands are still checked for their options
    <!-- exit code: 3 -->                       the last command of the block ends with this code
    <!-- interrupted -->                        Ctrl-C is pressed after the first piece of work
    <!-- given: plate.zarr, scan -->            anywhere on the page: what lies in the folder before the first block

A block with a title (`title="job.toml"`) is a file of the folder. A block of `text` right after one that is run is what
it prints: each of its lines has to be printed, up to numbers and blanks; `...` stands for lines that are left out.
"""

import contextlib
import io
import re
import runpy
import shlex
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

FENCE = re.compile(r"^(?P<indent> *)```(?P<language>\w*) *(?P<options>.*)$")
REMARK = re.compile(r"^ *<!-- (?P<text>.*?) -->$")
RUN = ("bash", "python")
"""Languages of the blocks that are run."""
SHELL = frozenset({">", "|", "&", "&&", "||"})
"""Words that end a command."""


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: str
    line: int
    language: str
    text: str
    remark: str = ""
    """Text of the HTML comment on the line before the block."""
    title: str = ""
    """Name of the file that the block is."""

    @property
    def place(self) -> str:
        """Page and line, for messages."""
        return f"{self.page}:{self.line}"

    @property
    def reason_not_run(self) -> str | None:
        """Why the block is not run; ``None`` if it is."""
        found = re.fullmatch(r"not run: *(.*)", self.remark)
        return found[1] if found else None

    @property
    def is_run(self) -> bool:
        """Whether the block is commands or code that a reader follows."""
        return self.language in RUN and not self.title and self.reason_not_run is None

    @property
    def is_interrupted(self) -> bool:
        """Whether Ctrl-C is pressed while the last command runs."""
        return self.remark == "interrupted"

    @property
    def exit_code(self) -> int:
        """The exit code that the last command is to have."""
        found = re.fullmatch(r"exit code: (\d+)", self.remark)
        return int(found[1]) if found else 130 * self.is_interrupted


class PageFault(Exception):
    """A block that did not do what the page says; the message begins with page and line."""


def pages(root: Path) -> dict[str, str]:
    """Return the text of the README and of every page of the site, by path below ``root``."""
    paths = [root / "README.md", *sorted((root / "docs").rglob("*.md"))]
    return {str(path.relative_to(root)): path.read_text(encoding="utf-8") for path in paths}


def read_blocks(page: str, text: str) -> list[Block]:
    """Return the fenced blocks of a page in their order; a fence that is not closed is a fault."""
    lines = text.splitlines()
    blocks: list[Block] = []
    number = 0
    while number < len(lines):
        if (fence := FENCE.match(lines[number])) is None:
            number += 1
            continue
        end = next((i for i in range(number + 1, len(lines)) if lines[i].strip() == "```"), None)
        if end is None:
            raise PageFault(f"{page}:{number + 1}: expected the end of this block, found the end of the page")
        blocks.append(_block(page, lines, number, end, fence))
        number = end + 1
    return blocks


def _block(page: str, lines: list[str], begin: int, end: int, fence: re.Match[str]) -> Block:
    remark = REMARK.match(lines[begin - 1]) if begin else None
    title = re.search(r'title="([^"]+)"', fence["options"])
    body = "".join(f"{line.removeprefix(fence['indent'])}\n" for line in lines[begin + 1 : end])
    return Block(
        page=page, line=begin + 1, language=fence["language"], text=body,
        remark=remark["text"] if remark else "", title=title[1] if title else "",
    )  # fmt: skip


def given(text: str) -> list[str]:
    """Return the names of what a page expects in its folder."""
    return [name.strip() for line in re.findall(r"<!-- given: (.*?) -->", text) for name in line.split(",")]


def commands(block: Block) -> list[str]:
    """Return the commands of a block of `bash`, one a line; comments are left out and continued lines joined."""
    joined = re.sub(r"\\\n *", "", block.text)
    lines = (re.sub(r"(^|\s+)# .*$", "", line).strip() for line in joined.splitlines())
    return [line for line in lines if line]


def platelayer_words(command: str) -> list[str] | None:
    """Return the words of a command after `platelayer`, up to a redirection; ``None`` for another program."""
    words = shlex.split(command)
    while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
        words.pop(0)
    if words[:1] != ["platelayer"]:
        return None
    end = next((number for number, word in enumerate(words) if word in SHELL), len(words))
    return words[1:end]


class Reader:
    """Somebody who works through a page in a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._names: dict[str, Any] = {"__name__": "__page__"}

    def follow(self, blocks: list[Block]) -> Iterator[tuple[Block, str]]:
        """Do what the blocks say, one after the other; yields each with what it printed."""
        printed: str | None = None
        for block in blocks:
            if block.language == "text" and printed is not None:
                _compare(block, printed)
            if block.title:
                (self._folder / block.title).write_text(block.text)
            printed = self._run(block) if block.is_run else None
            yield block, printed or ""

    def _run(self, block: Block) -> str:
        with contextlib.chdir(self._folder):
            return self._python(block) if block.language == "python" else self._bash(block)

    def _python(self, block: Block) -> str:
        code = compile(block.text, block.place, "exec")
        return _call(block, block.text, lambda: exec(code, self._names))

    def _bash(self, block: Block) -> str:
        *lines, last = commands(block)
        printed = [self._command(block, line) for line in lines]
        with ctrl_c() if block.is_interrupted else contextlib.nullcontext():
            printed.append(self._command(block, last, block.exit_code))
        return "".join(printed)

    def _command(self, block: Block, line: str, expected: int = 0) -> str:
        """Run one line: platelayer and Python files in this process, everything else in a shell."""
        words = shlex.split(line)
        target = self._folder / words[-1] if words[-2:-1] == [">"] else None
        words = words[:-2] if target else words
        if words[0] == "platelayer" and not SHELL & set(words):
            printed = _call(block, line, lambda: _platelayer(words[1:]), expected, errors_too=target is None)
        elif words[0] == "python" and words[1].endswith(".py"):
            printed = _call(block, line, lambda: runpy.run_path(words[1], run_name="__main__") and None)
        else:
            return _shell(block, line, expected)
        if target is None:
            return printed
        target.write_text(printed)
        return ""


def _platelayer(words: list[str]) -> int:
    from flows.cli import run

    return run(words)


def _call(
    block: Block, what: str, call: Callable[[], int | None], expected: int = 0, *, errors_too: bool = True
) -> str:
    """Call a function; returns what it wrote to standard output, and to standard error if wanted."""
    out = io.StringIO()
    errors = out if errors_too else io.StringIO()
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors):
            code = call() or 0
    except Exception as error:
        raise PageFault(
            f"{block.place}: {what}\n{type(error).__name__}: {error}\n{out.getvalue()}"
        ) from error
    _check_code(block, what, code, expected, out.getvalue() + ("" if errors_too else errors.getvalue()))
    return out.getvalue()


def _shell(block: Block, line: str, expected: int) -> str:
    done = subprocess.run(["bash", "-c", line], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    _check_code(block, line, done.returncode, expected, done.stdout)
    return done.stdout


def _check_code(block: Block, what: str, code: int, expected: int, printed: str) -> None:
    if code != expected:
        raise PageFault(f"{block.place}: {what}\nexpected exit code {expected}, got {code}\n{printed}")


def _compare(block: Block, printed: str) -> None:
    """Check that every line of a block is among the lines that were printed."""
    found = {_masked(line) for line in printed.splitlines()}
    wanted = [line for line in block.text.splitlines() if line.strip() not in ("", "...")]
    missing = [line for line in wanted if _masked(line) not in found]
    if missing:
        shown = "\n".join(missing)
        raise PageFault(f"{block.place}: expected these lines:\n{shown}\ngot:\n{printed or 'nothing'}")


def _masked(line: str) -> str:
    """Leave out what differs between machines: numbers, names of runs, folders and the width of tables."""
    line = re.sub(r"\b[0-9a-f]{12}\b", "RUN", line)
    line = re.sub(r"(?<![\w.])/[\w./-]*/", "", line)
    line = re.sub(r"[-+]?\d[\d.,]*(e[-+]?\d+)?", "0", line)
    return re.sub(r"[─━┏┓┡┩└┘┴┳╇┃│\s]+", " ", line).strip()


@contextlib.contextmanager
def ctrl_c() -> Iterator[None]:
    """Let every run that is started inside get Ctrl-C after its first piece of work."""
    from flows.commands import terminal

    with mock.patch.object(terminal, "watcher", _Interrupting):
        yield


class _Interrupting:
    """Watches a run and presses Ctrl-C when its second piece of work is done."""

    def __init__(self) -> None:
        self._pieces = 0

    def start(self, stage: str, total: int) -> None:
        """Count on."""

    def advance(self, stage: str, item: object) -> None:
        """Count a piece, and interrupt after the first."""
        self._pieces += 1
        if self._pieces > 1:
            raise KeyboardInterrupt

    def finish(self, stage: str) -> None:
        """Count on."""

    def close(self) -> None:
        """Nothing to stop."""
