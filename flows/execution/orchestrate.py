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
"""Seconds after which a server that has not answered is reported, whatever the reason."""

LOCAL_API = "http://127.0.0.1:4200/api"
"""Address of a server on this machine at Prefect's default port, used where none is configured."""

USES_SERVER = {"segment": False, "evaluate": False, "serve": True, "deploy": True}
"""Commands that use a server where one is configured, and whether they need one."""

OFFLINE = frozenset({"--help", "-h", "--example", "--dry-run"})
"""Options with which a command only prints information."""


class Step(Protocol):
    """A way to call a stage."""

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
    """Check the server that a command line needs, before slow imports.

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
    url, failure = configured_api(), ["no answer"]
    # In a thread, because name servers, several addresses and slow answers each have their own time limits.
    probe = threading.Thread(target=_ask, args=(f"{url.rstrip('/')}/health", failure), daemon=True)
    probe.start()
    probe.join(REACH_S)
    if failure[-1]:
        raise RunConflict(
            f"no Prefect server answers at {url!r} ({failure[-1]}); start it (prefect server start) and set "
            "PREFECT_API_URL, or unset it to run without one"
        )
    return url


def _ask(url: str, failure: list[str]) -> None:
    """Append to ``failure`` what is wrong with a server; an empty text where it answers."""
    import ssl
    from urllib.error import HTTPError, URLError
    from urllib.request import urlopen

    try:
        urlopen(url, timeout=REACH_S).close()
        failure.append("")
    except HTTPError as error:  # Authorisation is Prefect's to report.
        failure.append("" if error.code in (401, 403) else f"HTTP {error.code}")
    except URLError as error:  # Trust in certificates is Prefect's to report, too.
        failure.append("" if isinstance(error.reason, ssl.SSLCertVerificationError) else f"{error.reason}")
    except (OSError, ValueError) as error:
        failure.append(f"{error}")
