"""Versions of the installed packages and the current time, for records and workers."""

import importlib.metadata
import platform
from datetime import UTC, datetime

PACKAGES = ("platelayer", "numpy", "scipy", "zarr", "torch", "dask", "prefect", "pandas", "pyarrow")
"""Packages that results depend on."""


def now() -> str:
    """The time, ISO 8601 in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def written_by() -> tuple[tuple[str, str], ...]:
    """Date and version of the code, for the top of a page over many runs."""
    return ("Date", f"{now()[:16].replace('T', ' ')} UTC"), ("Code", f"platelayer {versions()['platelayer']}")


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that are installed."""
    known = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            known[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return known
