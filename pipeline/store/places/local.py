"""Files below one folder of a local or mounted disk.

Writes are atomic: a file is written beside its place under a name that ends in ``.partial`` and then renamed.
Unfinished files of a killed writer are never listed.
"""

import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

LEFTOVER = ".partial"
"""Ending of the names of unfinished files; zarr uses the same."""


READ_BYTES = 1 << 20
"""Bytes per read of what a file holds beyond its first size."""


class LocalFiles:
    """Keys (``a/b/c``) below a folder, as bytes."""

    def __init__(self, root: str) -> None:
        self.root = Path(root)
        # Plain strings: for the ten thousand small documents of a plate, making Path objects takes longer than reading.
        self._prefix = f"{self.root}{os.sep}"

    def get(self, key: str) -> bytes | None:
        """Read a file; None when it does not exist (or is a folder)."""
        # System calls: for the small files of a plate, a file object takes longer than reading.
        try:
            file = os.open(self._place(key), os.O_RDONLY | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            return None
        try:
            return _read_all(file)
        except IsADirectoryError:
            return None
        finally:
            os.close(file)

    def put(self, key: str, data: bytes) -> None:
        """Write a file atomically."""
        place = self._place(key)
        os.replace(self._write_beside(place, data), place)

    def put_new(self, key: str, data: bytes) -> bool:
        """Write a file unless it exists; return whether it was written (one of several concurrent writers succeeds)."""
        place = self._place(key)
        partial = self._write_beside(place, data)
        try:
            os.link(partial, place)
        except FileExistsError:
            return False
        finally:
            Path(partial).unlink()
        return True

    def exists(self, key: str) -> bool:
        """Whether there is a file or a folder."""
        return os.path.exists(self._place(key))

    def entries(self, key: str) -> list[tuple[str, int, str]]:
        """List all files below a key as (key, bytes, modification time in ns)."""
        return [(name, stat.st_size, str(stat.st_mtime_ns)) for name, stat in self._walk(key)]

    def children(self, key: str) -> list[str]:
        """List the names of the files and folders directly below a key."""
        try:
            names = [place.name for place in (self.root / key).iterdir()]
        except (FileNotFoundError, NotADirectoryError):
            return []
        return [name for name in names if not name.endswith(LEFTOVER)]

    def remove(self, key: str) -> None:
        """Remove a file or a folder with its contents; an absent one is no error."""
        place = self.root / key
        if place.is_dir() and not place.is_symlink():
            shutil.rmtree(place)
        else:
            place.unlink(missing_ok=True)

    def sweep(self, key: str) -> None:
        """Remove the unfinished files of killed writers below a key."""
        for folder, _, names in os.walk(self.root / key):
            for name in names:
                if name.endswith(LEFTOVER):
                    (Path(folder) / name).unlink(missing_ok=True)

    def copy(self, source: str, target: str) -> None:
        """Copy a file or a folder, replacing the target."""
        place = self.root / target
        place.parent.mkdir(parents=True, exist_ok=True)
        if (self.root / source).is_dir():
            shutil.copytree(self.root / source, place, dirs_exist_ok=True)
        else:
            self.put(target, (self.root / source).read_bytes())

    def move(self, source: str, target: str) -> None:
        """Move a file or a folder in one step, replacing the target."""
        place = self.root / target
        place.parent.mkdir(parents=True, exist_ok=True)
        if place.is_dir():
            shutil.rmtree(place)
        (self.root / source).replace(place)

    def _place(self, key: str) -> str:
        """Return the path of a key; without a key the address itself is the file."""
        return self._prefix + key if key else str(self.root)

    def _write_beside(self, place: str, data: bytes) -> str:
        folder, _, name = place.rpartition(os.sep)
        partial = f"{folder}{os.sep}.{name}.{uuid.uuid4().hex}{LEFTOVER}"
        try:
            file = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        except FileNotFoundError:
            os.makedirs(folder, exist_ok=True)
            return self._write_beside(place, data)
        try:
            _write_all(file, data)
        except OSError:
            Path(partial).unlink(missing_ok=True)
            raise
        finally:
            os.close(file)
        return partial

    def _walk(self, key: str) -> Iterator[tuple[str, os.stat_result]]:
        pending = [key]
        while pending:
            yield from self._scan(pending.pop(), pending)

    def _scan(self, folder: str, pending: list[str]) -> Iterator[tuple[str, os.stat_result]]:
        # Keys are joined from names, because cutting them out of paths takes longer than listing the files.
        prefix = f"{folder}/" if folder else ""
        try:
            entries = os.scandir(self._prefix + folder)
        except FileNotFoundError:
            return
        except NotADirectoryError:
            if (self.root / folder).is_file():
                yield folder, (self.root / folder).stat()
            return
        with entries:
            for item in entries:
                if item.is_dir():
                    pending.append(prefix + item.name)
                elif not item.name.endswith(LEFTOVER):
                    yield prefix + item.name, item.stat()


def _read_all(file: int) -> bytes:
    """Read an open file to its end."""
    parts = [os.read(file, os.fstat(file).st_size + 1)]
    while parts[-1]:
        parts.append(os.read(file, READ_BYTES))
    return b"".join(parts)


def _write_all(file: int, data: bytes) -> None:
    """Write all bytes to an open file."""
    left = memoryview(data)
    while left:
        left = left[os.write(file, left) :]
