"""How a step of a flow is called: directly, or as a Prefect task where a Prefect API is configured.

A Prefect task is one stage of one group of images, never a tile. Importing this module does not import Prefect.
"""

import os
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol


class Step(Protocol):
    """Calls a stage."""

    def __call__(self, call: Callable[..., Any], *arguments: Any, name: str) -> Any:
        """Call it under a name and return what it returns."""


def direct(call: Callable[..., Any], *arguments: Any, name: str) -> Any:
    """Call a stage in this process and nothing else."""
    return call(*arguments)


def is_prefect_configured() -> bool:
    """Whether a Prefect API is set, by the environment or by the active profile, without importing Prefect."""
    if os.environ.get("PREFECT_API_URL"):
        return True
    home = Path(os.environ.get("PREFECT_HOME", "~/.prefect")).expanduser()
    return _profile_names_api(home / "profiles.toml")


def _profile_names_api(path: Path) -> bool:
    try:
        profiles = tomllib.loads(path.read_text())
    except (OSError, tomllib.TOMLDecodeError):
        return False
    active = os.environ.get("PREFECT_PROFILE", profiles.get("active", ""))
    return bool(profiles.get("profiles", {}).get(active, {}).get("PREFECT_API_URL"))
