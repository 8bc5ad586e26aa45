"""Training on a machine with torch, numpy, scipy, scikit-image and safetensors only, for as long as there is time.

``python -m model.fit RECIPE DATA OUT --minutes 9`` reads data that ``platelayer train --pack`` wrote, measures its
speed, sets the lengths of the phases by the time, and writes everything needed to resume into OUT: at most 60 MiB in
parts of 15. With an existing OUT the training is resumed. ``python -m model.fit --unpack OUT FOLDER`` unpacks it.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from model.errors import NoDevice
from model.recipe import read_recipe
from model.samples.packing import read_packed
from model.training.archive import read_archive, write_archive
from model.training.budget import Clock
from model.training.loop import About, Trained, curves, train

SAY_EVERY_S = 5
ARCHIVE_EVERY_S = 60


def fit(
    recipe: str | Path,
    data: str | Path,
    out: str | Path,
    *,
    minutes: float,
    all_minutes: float = 0.0,
    device: str = "auto",
) -> Trained:
    """Train for some minutes and write an archive of the training into ``out``; an existing one is resumed.

    ``all_minutes``: time of all calls together, by which the lengths of the phases are set in the first one.

    Raises:
        BadSample: the data cannot be read, or do not fit each other or the method.
        BadCheckpoint: ``out`` holds parts that cannot be read.
        ValueError: ``out`` belongs to another recipe or other data, or there is no time for one step.
    """
    clock = Clock(minutes=minutes, all_minutes=all_minutes)
    packed, settings, target = read_packed(data), read_recipe(recipe), Path(out)
    torch.backends.cudnn.benchmark = True
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(scratch)
        read_archive(target, work)
        progress = _Progress(work, target)
        about = About(**packed.about)
        try:
            done = train(
                settings, packed.samples, packed.validation, work,
                device=device, about=about, clock=clock, on_step=progress, say=_say,
            )  # fmt: skip
        except ValueError as error:
            raise type(error)(str(error).replace(repr(str(work)), repr(str(target)))) from error
        write_archive(work, target)
        _say(f"best model: {done.folder.name}; {target} holds the training")
    return done


class _Progress:
    """Reports the progress of the training every few seconds, and archives it every minute."""

    def __init__(self, work: Path, out: Path) -> None:
        self.work, self.out = work, out
        self._started = self._said = self._archived = time.monotonic()
        self._first: int | None = None

    def __call__(self, step: int, steps: int) -> None:
        now = time.monotonic()
        self._first = step if self._first is None else self._first
        if now - self._said >= SAY_EVERY_S:
            self._said = now
            rate = (step - self._first) / (now - self._started)
            _say(f"step {step}/{steps}, {rate:.1f} steps/s{_memory()}{self._terms()}")
        if now - self._archived >= ARCHIVE_EVERY_S:
            write_archive(self.work, self.out)
            self._archived = time.monotonic()

    def _terms(self) -> str:
        """Return the last loss terms."""
        rows = [row for row in curves.read_table(self.work) if row["loss"]]
        known = ("phase", "step", "total_step", "seconds", "lr")
        shown = {k: v for k, v in (rows[-1] if rows else {}).items() if v and k not in known}
        return "".join(f", {name} {float(value):.3f}" for name, value in shown.items())


def _memory() -> str:
    if not torch.cuda.is_available():
        return ""
    return f", {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB"


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    parser = argparse.ArgumentParser("python -m model.fit", description=__doc__)
    parser.add_argument("recipe", help="name of a shipped recipe or path of a TOML file; with --unpack: OUT")
    parser.add_argument("data", help="file written by `platelayer train --pack`; with --unpack: a new folder")
    parser.add_argument("out", nargs="?", help="folder for the archive of the training")
    parser.add_argument("--minutes", type=float, default=9.0, help="time of this call (default: 9)")
    parser.add_argument("--all-minutes", type=float, default=0.0, help="time of all calls together")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--unpack", action="store_true", help="unpack an archive into a folder")
    given = parser.parse_args(arguments)
    try:
        if given.unpack:
            if not read_archive(Path(given.recipe), Path(given.data)):
                raise ValueError(f"{given.recipe!r}: expected the archive of a training, got none")
        elif given.out is None:
            raise ValueError("expected RECIPE, DATA and OUT")
        else:
            fit(
                given.recipe, given.data, given.out,
                minutes=given.minutes, all_minutes=given.all_minutes, device=given.device,
            )  # fmt: skip
    except (ValueError, NoDevice, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
