"""Changes of a recipe by a job: `change` in its file, or `--set change.phases.0.steps=100`."""

from collections.abc import Mapping, Sequence
from typing import Any


def merged(base: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``base`` with the keys of ``change`` replaced; tables key by key, lists of tables by their numbers."""
    result = dict(base)
    for key, entry in change.items():
        inner = result.get(key)
        if isinstance(inner, list) and isinstance(entry, Mapping):
            entry = _merged_list(key, inner, entry)
        elif isinstance(inner, Mapping) and isinstance(entry, Mapping):
            entry = merged(inner, entry)
        result[key] = entry
    return result


def _merged_list(name: str, base: Sequence[Any], change: Mapping[str, Any]) -> list[Any]:
    """Return a list of tables with those changed that ``change`` names by their numbers, from 0."""
    result = list(base)
    for number, entry in change.items():
        if not number.isdecimal() or int(number) >= len(result) or not isinstance(entry, Mapping):
            raise ValueError(
                f"{name}.{number}: expected a number from 0 to {len(result) - 1} and a key, "
                f"such as {name}.0.steps"
            )
        result[int(number)] = merged(result[int(number)], entry)
    return result
