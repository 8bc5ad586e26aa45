"""Progress of a run: bars on a terminal, plain lines elsewhere."""

import sys
import time
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

if TYPE_CHECKING:  # Imported late, because most commands show no progress.
    from flows.segmentation.image_job import TileJob

LINE_S = 10
"""Seconds between plain lines."""


def print_line(text: str) -> None:
    """Print a line of progress of a long run."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


class Bars:
    """One bar per stage: finished units, Mpx/s, remaining time."""

    def __init__(self, console: Console) -> None:
        columns = (
            TextColumn("{task.description:>9}"), BarColumn(), MofNCompleteColumn(),
            TextColumn("{task.fields[rate]:>6.1f} Mpx/s"), TimeRemainingColumn(),
        )  # fmt: skip
        self._bars = Progress(*columns, console=console)
        self._tasks: dict[str, tuple[TaskID, list[float]]] = {}
        self._bars.start()

    def start(self, stage: str, total: int) -> None:
        """Show a stage, or extend its bar."""
        if stage in self._tasks:
            task, _ = self._tasks[stage]
            self._bars.update(task, total=(self._bars.tasks[task].total or 0) + total)
        else:
            self._tasks[stage] = (
                self._bars.add_task(stage, total=total, rate=0.0),
                [time.perf_counter(), 0.0],
            )

    def advance(self, stage: str, item: "TileJob | None") -> None:
        """Move a bar."""
        task, state = self._tasks[stage]
        state[1] += pixels(item)
        self._bars.update(task, advance=1, rate=state[1] / 1e6 / max(time.perf_counter() - state[0], 1e-3))

    def finish(self, stage: str) -> None:
        """Keep the bar, which the next group extends."""

    def close(self) -> None:
        """Stop drawing."""
        self._bars.stop()


class Lines:
    """Plain lines for logs: at the start of a stage, every few seconds, and at its end."""

    def __init__(self) -> None:
        self._state: dict[str, list[float]] = {}

    def start(self, stage: str, total: int) -> None:
        """Start counting."""
        now = time.perf_counter()
        self._state[stage] = [0, total, now, now, 0.0]

    def advance(self, stage: str, item: "TileJob | None") -> None:
        """Count, and print a line at intervals."""
        state = self._state[stage]
        state[0] += 1
        state[4] += pixels(item)
        if time.perf_counter() - state[3] > LINE_S:
            state[3] = time.perf_counter()
            self._say(stage)

    def finish(self, stage: str) -> None:
        """Print the end of the stage."""
        if self._state[stage][1]:
            self._say(stage)

    def close(self) -> None:
        """Do nothing: lines need no end."""

    def _say(self, stage: str) -> None:
        done, total, began, _, px = self._state[stage]
        seconds = max(time.perf_counter() - began, 1e-3)
        left = seconds / done * (total - done) if done else 0.0
        rate = f"{px / 1e6 / seconds:.1f} Mpx/s, " if px else ""
        sys.stdout.write(f"{stage}: {done:.0f}/{total:.0f}, {rate}{left:.0f} s left\n")
        sys.stdout.flush()


def pixels(item: "TileJob | None") -> int:
    """Pixels of a unit of work."""
    return item.tile.core.shape[0] * item.tile.core.shape[1] if item is not None else 0


def wide_console() -> Console:
    """A console for tables, as wide as the terminal, or wide enough for all columns without one."""
    console = Console(file=sys.stdout, highlight=False)
    return console if console.is_terminal else Console(file=sys.stdout, highlight=False, width=180)


def watcher() -> Bars | Lines:
    """Bars where there is a terminal, lines where there is none."""
    console = Console()
    return Bars(console) if console.is_terminal else Lines()
