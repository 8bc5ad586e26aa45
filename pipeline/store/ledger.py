"""The state of a run, beside the data: ``<output>/.platelayer/<run>/``.

A run is named by a fingerprint of everything its result depends on, so changed work gets a new folder and stale
state is never read. Marks are written last and atomically: work with a mark is complete, all other work is repeated.
"""

import hashlib
import json
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.errors import BadStore, RunConflict
from pipeline.store.columns import Columns
from pipeline.store.places.address import Address
from pipeline.store.places.faults import StoreLost, explained

ROOT = ".platelayer"
"""Folder in the output store that holds all runs."""

LOCK = f"{ROOT}/lock.json"
"""Lock file of an output; a run that takes over from a dead one adds a further file to the chain (`_chain`)."""

JOB = "job.json"
"""File in the folder of a run with its job, the first one written."""

FORMAT = 1
"""Version of the scratch files; it is part of the fingerprint, so another version makes another run."""

BEAT_S = 10
"""Seconds between two heartbeats of the run that holds an output."""

STALE_S = 60
"""Seconds without a heartbeat after which a holder on another machine counts as dead."""

_held_here: set[str] = set()
"""Tokens of the locks that this process holds."""


class BadOutput(StoreLost):
    """The output cannot be written. No image is at fault, so the run stops, and continues when it is started again."""


def fingerprint(facts: Mapping[str, Any]) -> str:
    """Name of a run: hash of everything its result depends on, and of the format of the scratch."""
    text = json.dumps({"format": FORMAT, **facts}, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def safe_name(path: str) -> str:
    """Turn a path inside a store into one segment of a key; the image at the root of the store is ``image``."""
    return path.replace("/", "~") or "image"


@dataclass(frozen=True)
class Ledger:
    """State of one run in one output store."""

    output: Address
    run: str

    @property
    def folder(self) -> str:
        """Key of the run's folder inside the output store."""
        return f"{ROOT}/{self.run}"

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Turn every fault of the store inside the block into `BadOutput`."""
        try:
            with explained(str(self.output)):
                yield
        except BadStore as error:
            raise BadOutput(str(error)) from None

    def write(self, key: str, data: bytes) -> None:
        """Write a blob atomically."""
        try:
            self.output.write_bytes(f"{ROOT}/{self.run}/{key}", data)
        except BadStore as error:
            raise BadOutput(str(error)) from None

    def write_columns(self, key: str, columns: Columns) -> None:
        """Write columns as a blob; a draft keeps them as they are."""
        try:
            self.output.write_columns(f"{ROOT}/{self.run}/{key}", columns)
        except BadStore as error:
            raise BadOutput(str(error)) from None

    def read_columns(self, key: str) -> Columns:
        """Read the columns of a blob; the arrays are read-only."""
        return self.output.read_columns(f"{self.folder}/{key}")

    def write_packed(self, key: str, array: np.ndarray) -> None:
        """Write an array as a compressed blob; a draft keeps it as it is, so it must not be changed afterwards."""
        try:
            self.output.write_packed(f"{ROOT}/{self.run}/{key}", array)
        except BadStore as error:
            raise BadOutput(str(error)) from None

    def read_packed(self, key: str, dtype: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
        """Read a packed array of known type and shape, read-only; ValueError when its blob is damaged."""
        return self.output.read_packed(f"{self.folder}/{key}", dtype, shape)

    def read(self, key: str) -> bytes:
        """Read a blob."""
        return self.output.read_bytes(f"{self.folder}/{key}")

    def find(self, key: str) -> bytes | None:
        """Read a blob; None where there is none."""
        return self.output.read_bytes_or_none(f"{self.folder}/{key}")

    @property
    def is_begun(self) -> bool:
        """Whether the run was started in this output: its job file is written before any result."""
        return self.output.exists(f"{self.folder}/{JOB}")

    def write_json(self, key: str, value: Any) -> None:
        """Write a JSON document with sorted keys, one line per entry of an object."""
        self.write(key, _lines(value).encode())

    def find_json(self, key: str) -> Any:
        """Read a JSON document; None where there is none."""
        data = self.find(key)
        return None if data is None else json.loads(data)

    def mark(self, stage: str, image: str, key: str, facts: Mapping[str, Any] | None = None) -> None:
        """Mark a unit of work as complete; called after its results were written."""
        self.write_json(f"done/{stage}/{image}/{key}", facts or {})

    def marks(self, stage: str, image: str) -> set[str]:
        """Return the keys of the completed work of a stage for an image, by one listing."""
        return set(self.output.list(f"{self.folder}/done/{stage}/{image}"))

    def forget(self, key: str) -> None:
        """Remove a blob or everything below a prefix."""
        self.output.remove(f"{self.folder}/{key}")


def _lines(value: Any, depth: int = 2) -> str:
    """Encode JSON with one line per entry of the outer objects; indenting all of it takes ten times as long."""
    if not isinstance(value, Mapping) or not depth or not value:
        return json.dumps(value, sort_keys=True, default=str)
    entries = (f"{json.dumps(str(name))}: {_lines(value[name], depth - 1)}" for name in sorted(value))
    return "{\n" + ",\n".join(entries) + "\n}"


@dataclass(frozen=True)
class Hold:
    """The lock that a run of this process holds on an output."""

    output: Address
    run: str
    token: str
    lost: threading.Event = field(default_factory=threading.Event)

    def check(self) -> None:
        """Raise `RunConflict` when another run took over the output because heartbeats of this one were missing."""
        if self.lost.is_set():
            raise RunConflict(
                f"{self.output}: another run took this output over because this run sent no heartbeat; decide which "
                "of the two to keep, then give its command again"
            )


@contextmanager
def held(output: Address, run: str, *, stale_s: float = STALE_S) -> Iterator[Hold]:
    """Lock an output for one run; a second run is refused with the name of the first.

    The lock of a dead process on this machine is taken over immediately, that of a process elsewhere after ``stale_s``
    without a heartbeat. If several runs try at the same time, exactly one takes over.

    Raises:
        RunConflict: the output is held by a living run.
    """
    hold = Hold(output, run, uuid.uuid4().hex)
    _held_here.add(hold.token)
    try:
        yield from _kept(hold, _take(hold, stale_s))
    finally:
        _held_here.discard(hold.token)


def _kept(hold: Hold, place: str) -> Iterator[Hold]:
    """Send heartbeats while the lock is held, then release it."""
    stop = threading.Event()
    beat = threading.Thread(target=_keep, args=(hold, place, stop), daemon=True)
    beat.start()
    try:
        yield hold
    finally:
        stop.set()
        beat.join()
        if not hold.lost.is_set():
            _release(hold)


def _take(hold: Hold, stale_s: float) -> str:
    """Acquire the lock of an output; returns the key of the lock file."""
    for _ in range(3):
        chain = _chain(hold.output)
        _refuse_living(hold.output, chain, stale_s)
        place = _link(chain[-1]["token"]) if chain else LOCK
        hold.output.write_new(place, _card(hold))
        # The return value of `write_new` is not sufficient: the chain may have been released meanwhile, and after a
        # repeated request "exists already" may refer to the file of the first attempt. So the chain is read again.
        if _is_ours(hold, _chain(hold.output)):
            return place
    raise RunConflict(f"{hold.output}: several runs are starting on this output at once; try again")


def check_free(output: Address, *, stale_s: float = STALE_S) -> None:
    """Refuse an output that a living run holds, as `held` does, without taking the lock."""
    _refuse_living(output, _chain(output), stale_s)


def _refuse_living(output: Address, chain: list[dict[str, Any]], stale_s: float) -> None:
    if chain and not _is_dead(chain[-1], stale_s):
        holder = chain[-1]
        raise RunConflict(
            f"{output}: expected a free output, but run {holder['run']} (process {holder['pid']} on "
            f"{holder['host']}) is writing to it; wait for it or stop it. If it died on another machine, "
            f"try again in {stale_s:.0f} s"
        )


def _release(hold: Hold) -> None:
    """Remove the chain of lock files, beginning with the first: if killed in between, the rest cannot be reached."""
    chain = _chain(hold.output)
    if _is_ours(hold, chain):
        for place in (LOCK, *(_link(card["token"]) for card in chain[:-1])):
            hold.output.remove(place)


def _chain(output: Address) -> list[dict[str, Any]]:
    """Return the lock files in order: each run took over from a dead one before it, and the last one holds the lock.

    A lock file is never overwritten: its name contains the token of the one before, and it is created only if it
    does not exist. So exactly one of several successors wins, and a late one cannot undo that.
    """
    chain: list[dict[str, Any]] = []
    data = output.read_bytes_or_none(LOCK)
    while data is not None:
        chain.append(_read_card(data))
        data = output.read_bytes_or_none(_link(chain[-1]["token"]))
    return chain


def _link(token: str) -> str:
    return f"{ROOT}/lock-{token}.json"


def _is_ours(hold: Hold, chain: list[dict[str, Any]]) -> bool:
    return bool(chain) and chain[-1]["token"] == hold.token


def _read_card(data: bytes) -> dict[str, Any]:
    """Parse a lock file; a damaged one counts as that of a dead holder."""
    try:
        card = json.loads(data)
    except ValueError:
        card = None
    if isinstance(card, dict) and {"run", "host", "pid", "token"} <= card.keys():
        return card
    return {"run": "?", "host": "?", "pid": 0, "token": hashlib.sha256(data).hexdigest()[:32]}


def _card(hold: Hold) -> bytes:
    facts = {
        "run": hold.run,
        "host": socket.gethostname(),
        "machine": _machine(),
        "pid": os.getpid(),
        "born": _born(os.getpid()),
        "token": hold.token,
        "beat": time.time(),
    }
    return json.dumps(facts).encode()


def _machine() -> str:
    """Name of the scope in which process numbers are unique: the host, its boot and its container."""
    facts = [socket.gethostname()]
    try:
        facts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        facts.append(str(Path("/proc/self/ns/pid").readlink()))
    except OSError:  # not Linux: only the host is known
        pass
    return " ".join(facts)


def _born(pid: int) -> str | None:
    """Start time of a process in ticks since boot, because process numbers are reused; None where unknown."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return None


def _is_dead(holder: Mapping[str, Any], stale_s: float) -> bool:
    if holder.get("machine") != _machine():
        return time.time() - float(holder.get("beat", 0)) > stale_s
    pid = int(holder["pid"])
    if pid == os.getpid() and holder.get("born") == _born(pid):
        # An earlier run of this process may have been unable to remove its lock, because the store was unreachable.
        return holder.get("token") not in _held_here
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return holder.get("born") != _born(pid)


def _keep(hold: Hold, place: str, stop: threading.Event) -> None:
    """Send heartbeats; notice when another run took over."""
    while not stop.wait(BEAT_S):
        try:
            if not _is_ours(hold, _chain(hold.output)):
                hold.lost.set()
                return
            hold.output.write_bytes(place, _card(hold))
        except BadStore as error:
            logging.getLogger(__name__).warning("the lock could not be renewed: %s", error)
