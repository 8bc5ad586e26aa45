"""The state of a run, beside the data: ``<output>/.platelayer/<run>/``.

A run is named by a fingerprint of everything its result depends on, so changed work gets a new folder and stale
state is unreachable. Marks are written last and whole: what has one is done, what has none is done again.
"""

import hashlib
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from pipeline.errors import RunConflict
from pipeline.store.address import Address

ROOT = ".platelayer"
"""Folder in the output store that holds all runs."""

FORMAT = 1
"""Version of the scratch; another number, another run."""

BEAT_S = 10
"""The holder of an output says this often that it is alive."""

STALE_S = 60
"""A holder that was silent for so long is taken for dead."""


def fingerprint(facts: Mapping[str, Any]) -> str:
    """Name of a run: hash of everything its result depends on, and of the format of the scratch."""
    text = json.dumps({"format": FORMAT, **facts}, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def safe_name(path: str) -> str:
    """A path inside a store as one segment of a key; the store's own image is ``image``."""
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

    def write(self, key: str, data: bytes) -> None:
        """Write a blob, whole or not at all."""
        self.output.write_bytes(f"{self.folder}/{key}", data)

    def read(self, key: str) -> bytes:
        """Read a blob."""
        return self.output.read_bytes(f"{self.folder}/{key}")

    def find(self, key: str) -> bytes | None:
        """Read a blob that may not be there."""
        return self.output.find_bytes(f"{self.folder}/{key}")

    def write_json(self, key: str, value: Any) -> None:
        """Write a JSON document with sorted keys."""
        self.write(key, json.dumps(value, indent=1, sort_keys=True, default=str).encode())

    def find_json(self, key: str) -> Any:
        """Read a JSON document; None where there is none."""
        data = self.find(key)
        return None if data is None else json.loads(data)

    def mark(self, stage: str, image: str, key: str, facts: Mapping[str, Any] | None = None) -> None:
        """Say that a piece of work is done; call it last."""
        self.write_json(f"done/{stage}/{image}/{key}", facts or {})

    def marks(self, stage: str, image: str) -> set[str]:
        """Keys of the work of a stage that is done for an image: one listing."""
        return set(self.output.list(f"{self.folder}/done/{stage}/{image}"))

    def forget(self, key: str) -> None:
        """Remove a blob or everything below a prefix."""
        self.output.remove(f"{self.folder}/{key}")


@contextmanager
def held(output: Address, run: str, *, stale_s: float = STALE_S) -> Iterator[None]:
    """Hold an output for one run; a second run is refused with the name of the first.

    A holder on this machine whose process is gone is replaced at once, one elsewhere after ``stale_s`` of silence.

    Raises:
        RunConflict: the output is held by a living run.
    """
    key, token = f"{ROOT}/lock.json", uuid.uuid4().hex
    _take(output, key, run, token, stale_s)
    stop = threading.Event()
    beat = threading.Thread(target=_keep, args=(output, key, run, token, stop), daemon=True)
    beat.start()
    try:
        yield
    finally:
        stop.set()
        beat.join()
        output.remove(key)


def _take(output: Address, key: str, run: str, token: str, stale_s: float) -> None:
    for _ in range(3):
        if output.write_new(key, _card(run, token)):
            return
        found = output.find_bytes(key)
        holder = json.loads(found) if found else None
        if holder and not _is_dead(holder, stale_s):
            raise RunConflict(
                f"{output}: expected a free output, but run {holder['run']} (process {holder['pid']} on "
                f"{holder['host']}) is writing to it; wait for it or stop it. If it died on another machine, "
                f"try again in {stale_s:.0f} s"
            )
        output.remove(key)
    raise RunConflict(f"{output}: several runs are starting on this output at once; try again")


def _card(run: str, token: str) -> bytes:
    facts = {
        "run": run,
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "token": token,
        "beat": time.time(),
    }
    return json.dumps(facts).encode()


def _is_dead(holder: Mapping[str, Any], stale_s: float) -> bool:
    if holder.get("host") == socket.gethostname():
        try:
            os.kill(int(holder["pid"]), 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            return False
        return False
    return time.time() - float(holder.get("beat", 0)) > stale_s


def _keep(output: Address, key: str, run: str, token: str, stop: threading.Event) -> None:
    while not stop.wait(BEAT_S):
        output.write_bytes(key, _card(run, token))
