"""Objects below one prefix of a bucket, with as few requests as S3 allows.

fsspec checks for every name whether it is a file or a folder (HEAD, then LIST); here the caller knows. A listing and
a test of existence are one LIST each, a copy is one COPY, a removal one LIST and one DELETE for a thousand objects.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from botocore.exceptions import ClientError

from pipeline.store.places.remote import RemoteFiles, metadata_first, token

MOST_KEYS = 1000
"""Objects that one DELETE removes."""

COPIERS = 16
"""Concurrent copies on the server."""


class S3Files(RemoteFiles):
    """Keys (``a/b/c``) below a URL, as bytes."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.bucket, _, self.prefix = self.root.partition("/")

    def exists(self, key: str) -> bool:
        """Whether there is an object or a prefix: one LIST, or two where a sibling sorts before."""
        name = self._name(key)
        first = self._list(Prefix=name, MaxKeys=1).get("Contents", [])
        if not first or first[0]["Key"] == name or first[0]["Key"].startswith(_folder(name)):
            return bool(first)
        return bool(self._list(Prefix=_folder(name), MaxKeys=1).get("Contents"))

    def entries(self, key: str) -> list[tuple[str, int, str]]:
        """List all objects below a key as (key, bytes, etag): one LIST for a thousand objects."""
        # An empty object whose name ends in a slash stands for a folder in some tools.
        return [
            (self._below(info["Key"]), int(info["Size"]), token(info))
            for info in self._objects(_folder(self._name(key)))
            if not info["Key"].endswith("/")
        ]

    def children(self, key: str) -> list[str]:
        """List the names directly below a key."""
        folder = _folder(self._name(key))
        names = set()
        for page in self._pages(Prefix=folder, Delimiter="/"):
            names |= {info["Prefix"][len(folder) :].rstrip("/") for info in page["CommonPrefixes"]}
            names |= {info["Key"][len(folder) :] for info in page["Contents"]}
        return sorted(names - {""})

    def remove(self, key: str) -> None:
        """Remove an object and all objects below a key; absent ones are no error."""
        name = self._name(key)
        keys = [info["Key"] for info in self._objects(name)]
        self._remove_names([key for key in keys if key == name or key.startswith(_folder(name))])

    def _copy_all(self, sources: Sequence[str], targets: Sequence[str]) -> None:
        def copy(source: str, target: str) -> None:
            place = {"Bucket": self.bucket, "Key": self._name(source)}
            self.fs.call_s3("copy_object", Bucket=self.bucket, Key=self._name(target), CopySource=place)

        with ThreadPoolExecutor(COPIERS) as threads:
            for _ in threads.map(copy, sources, targets):
                pass

    def _remove_names(self, names: Sequence[str]) -> None:
        ordered = [name for part in metadata_first(names) for name in part]
        for start in range(0, len(ordered), MOST_KEYS):
            part = [{"Key": name} for name in ordered[start : start + MOST_KEYS]]
            asked = {"Objects": part, "Quiet": True}
            answer = self.fs.call_s3("delete_objects", Bucket=self.bucket, Delete=asked)
            if answer.get("Errors"):
                raise ClientError({"Error": answer["Errors"][0]}, "DeleteObjects")

    def _objects(self, prefix: str) -> Iterator[dict[str, Any]]:
        return (info for page in self._pages(Prefix=prefix) for info in page["Contents"])

    def _pages(self, **asked: Any) -> Iterator[dict[str, list[dict[str, Any]]]]:
        while True:
            page = self._list(**asked)
            yield {"Contents": page.get("Contents", []), "CommonPrefixes": page.get("CommonPrefixes", [])}
            if not page.get("IsTruncated"):
                return
            asked["ContinuationToken"] = page["NextContinuationToken"]

    def _list(self, **asked: Any) -> dict[str, Any]:
        return self.fs.call_s3("list_objects_v2", Bucket=self.bucket, **asked)

    def _name(self, key: str) -> str:
        return "/".join(part for part in (self.prefix, key) if part)

    def _below(self, name: str) -> str:
        return name.removeprefix(self.prefix).lstrip("/")


def _folder(name: str) -> str:
    return f"{name}/" if name else ""
