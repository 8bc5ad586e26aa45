"""Requests of this process to servers: their number by kind, bytes in both directions, and retries.

Requests are counted where they are sent (the HTTP session of S3 and https; `RetryingStore` for obstore), so retries
and pages of listings are included. The counter belongs to the process: `take_counts` returns and resets it, and the
caller sums them. Access to local files is not counted.
"""

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

KINDS = ("GET", "PUT", "LIST", "HEAD", "DELETE", "COPY")
"""Kinds of requests, as object stores bill them."""


@dataclass(frozen=True, kw_only=True)
class Traffic:
    """Requests and bytes; values add up."""

    requests: Mapping[str, int] = field(default_factory=dict)
    """Number by kind, every attempt counted."""
    bytes_in: int = 0
    """Bytes of the responses' bodies."""
    bytes_out: int = 0
    """Bytes of the requests' bodies."""
    retries: int = 0
    """Attempts that were not the first."""

    def __add__(self, other: "Traffic") -> "Traffic":
        both = {kind: self.requests.get(kind, 0) + other.requests.get(kind, 0) for kind in KINDS}
        return Traffic(
            requests={kind: number for kind, number in both.items() if number},
            bytes_in=self.bytes_in + other.bytes_in,
            bytes_out=self.bytes_out + other.bytes_out,
            retries=self.retries + other.retries,
        )

    def __bool__(self) -> bool:
        return self != Traffic()

    @property
    def total(self) -> int:
        """Requests of all kinds."""
        return sum(self.requests.values())

    def __str__(self) -> str:
        kinds = ", ".join(f"{self.requests[kind]:,} {kind}" for kind in KINDS if kind in self.requests)
        return (
            f"{self.total:,} requests ({kinds or 'none'}), {self.bytes_in / 2**20:.1f} MiB in, "
            f"{self.bytes_out / 2**20:.1f} MiB out, {self.retries:,} retries"
        )


def traffic_of(facts: Mapping[str, Any]) -> Traffic:
    """Build a `Traffic` value from its JSON form."""
    return Traffic(**{name: facts[name] for name in ("requests", "bytes_in", "bytes_out", "retries")})


class _Count:
    """The counter of this process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._traffic = Traffic()

    def add(self, traffic: Traffic) -> None:
        with self._lock:
            self._traffic += traffic

    def take(self) -> Traffic:
        with self._lock:
            counted, self._traffic = self._traffic, Traffic()
        return counted


_count = _Count()


def count_request(kind: str, *, size: int = 0, again: bool = False) -> None:
    """Count a request with the bytes of its body; ``again`` when it is not the first attempt."""
    _count.add(Traffic(requests={kind: 1}, bytes_out=size, retries=int(again)))


def count_received(size: int) -> None:
    """Count the bytes of a response."""
    _count.add(Traffic(bytes_in=size))


def count_retry() -> None:
    """Count a retry that is not marked in the request itself: a response that broke off is read again."""
    _count.add(Traffic(retries=1))


def take_counts() -> Traffic:
    """Return the counts since the last call, and reset them."""
    return _count.take()


def kind_of_request(method: str, url: str, headers: Mapping[str, Any]) -> str:
    """Classify an HTTP request to S3 as one of `KINDS`."""
    query = url.partition("?")[2]
    asked = {part.partition("=")[0] for part in query.split("&")}
    if method == "GET" and asked & {"list-type", "delimiter", "prefix"}:
        return "LIST"
    if method == "POST" and "delete" in asked:
        return "DELETE"
    if method == "PUT" and any(name.lower() == "x-amz-copy-source" for name in headers):
        return "COPY"
    return {"POST": "PUT"}.get(method, method)
