"""How a step of a flow is called: directly, or as a Prefect task where a Prefect API is configured.

A Prefect task is one stage of one group of images, never a tile. Importing this module does not import Prefect.
"""

import os
import threading
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from pipeline.errors import RunConflict

REACH_S = 5
"""A server that did not answer after so long, whatever it is that hangs, is reported and not waited for."""

LOCAL_API = "http://127.0.0.1:4200/api"
"""A server on this machine at Prefect's own port, where none is configured."""

USES_SERVER = {"segment": False, "evaluate": False, "serve": True, "deploy": True}
"""Commands that use a server where one is configured, and whether they need one."""

OFFLINE = frozenset({"--help", "-h", "--example", "--dry-run"})
"""Words with which a command only says something."""


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


def reach_server(words: Sequence[str]) -> None:
    """Ask for the server that a command line will need, before anything is imported that takes seconds to load.

    Raises:
        RunConflict: it does not answer.
    """
    command = words[0] if words else ""
    if command not in USES_SERVER or OFFLINE.intersection(words):
        return
    if USES_SERVER[command] and not is_prefect_configured():
        os.environ["PREFECT_API_URL"] = LOCAL_API
    if is_prefect_configured():
        reach_api()


def reach_api() -> str:
    """URL of the API that is set, after it answered.

    Raises:
        RunConflict: it does not answer.
    """
    url, told = configured_api(), ["no answer"]
    # A thread, because name servers, several addresses and slow answers each have time limits of their own.
    probe = threading.Thread(target=_ask, args=(f"{url.rstrip('/')}/health", told), daemon=True)
    probe.start()
    probe.join(REACH_S)
    if told[-1]:
        raise RunConflict(
            f"no Prefect server answers at {url!r} ({told[-1]}); start it (prefect server start) and set "
            "PREFECT_API_URL, or unset it to run without one"
        )
    return url


def _ask(url: str, told: list[str]) -> None:
    """Add what is wrong with a server to ``told``; nothing, where it answers as one."""
    import ssl
    from urllib.error import HTTPError, URLError
    from urllib.request import urlopen

    try:
        urlopen(url, timeout=REACH_S).close()
        told.append("")
    except HTTPError as error:  # who may come in is for Prefect to tell
        told.append("" if error.code in (401, 403) else f"HTTP {error.code}")
    except URLError as error:  # and so is which certificate is trusted
        told.append("" if isinstance(error.reason, ssl.SSLCertVerificationError) else f"{error.reason}")
    except (OSError, ValueError) as error:
        told.append(f"{error}")
