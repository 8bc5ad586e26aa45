"""Which code does the work, and when: what records and workers say of themselves."""

import importlib.metadata
import platform
from datetime import UTC, datetime

PACKAGES = ("platelayer", "numpy", "scipy", "zarr", "torch", "dask", "prefect", "pandas", "pyarrow")
"""Packages that results depend on."""


def now() -> str:
    """The time, ISO 8601 in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def written_by() -> tuple[tuple[str, str], ...]:
    """When and by which code a page over many runs is written, to stand on its top."""
    return ("Date", f"{now()[:16].replace('T', ' ')} UTC"), ("Code", f"platelayer {versions()['platelayer']}")


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that are installed."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
