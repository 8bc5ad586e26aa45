"""How a step of a flow is called: directly, or as a Prefect task where a Prefect API is configured.

A Prefect task is one stage of one group of images, never a tile. Importing this module does not import Prefect.
"""

import os
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from pipeline.errors import RunConflict

REACH_S = 5
"""A server that does not accept a connection, or then does not answer, for so long is reported, not waited for."""


class Step(Protocol):
    """Calls a stage."""

    def __call__(self, call: Callable[..., Any], *arguments: Any, name: str) -> Any:
        """Call it under a name and return what it returns."""


def direct(call: Callable[..., Any], *arguments: Any, name: str) -> Any:
    """Call a stage in this process and nothing else."""
    return call(*arguments)


def is_prefect_configured() -> bool:
    """Whether a Prefect API is set, by the environment or by the active profile, without importing Prefect."""
    return bool(configured_api())


def configured_api() -> str:
    """URL of the Prefect API that is set; empty where none is."""
    home = Path(os.environ.get("PREFECT_HOME", "~/.prefect")).expanduser()
    return os.environ.get("PREFECT_API_URL") or _api_of_profile(home / "profiles.toml")


def _api_of_profile(path: Path) -> str:
    try:
        profiles = tomllib.loads(path.read_text())
    except (OSError, tomllib.TOMLDecodeError):
        return ""
    active = os.environ.get("PREFECT_PROFILE", profiles.get("active", ""))
    return str(profiles.get("profiles", {}).get(active, {}).get("PREFECT_API_URL") or "")


def reach_api() -> str:
    """URL of the API that is set, after it answered; asked before Prefect, which takes seconds, is imported.

    Raises:
        RunConflict: it does not answer.
    """
    import httpx

    url = configured_api()
    try:
        httpx.get(f"{url.rstrip('/')}/health", timeout=REACH_S).raise_for_status()
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise RunConflict(
            f"no Prefect server answers at {url!r} ({type(error).__name__}); start it (prefect server start) and set "
            "PREFECT_API_URL, or unset it to run without one"
        ) from None
    return url
