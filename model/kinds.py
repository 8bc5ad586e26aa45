"""The table of methods, and how one is made from the plain values of a recipe or card."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from model.method import Method
from model.methods.layering import Layering

KINDS: dict[str, type[Method]] = {
    "layering": Layering,
}
"""Every method by its name; a new one is a line here."""


def method_from(values: Mapping[str, Any]) -> Method:
    """Make a method from plain values: ``kind`` (default: layering), its settings and the table ``shape``.

    What ``shape`` leaves out is as in the method's usual network.

    Raises:
        ValueError: an unknown kind or name, or a value that the method refuses.
    """
    settings = dict(values)
    name = settings.pop("kind", "layering")
    if name not in KINDS:
        raise ValueError(f"method.kind: expected one of {sorted(KINDS)}, got {name!r}")
    kind = KINDS[name]
    usual = kind().shape
    shape = made(type(usual), usual.as_dict() | dict(settings.pop("shape", {})), "method.shape")
    method: Method = made(kind, settings | {"shape": shape}, "method")
    return method


def made(kind: Any, values: Mapping[str, Any], where: str) -> Any:
    """Make a dataclass from plain values; unknown names are refused."""
    known = {entry.name for entry in fields(kind)}
    unknown = sorted(set(values) - known)
    if unknown:
        raise ValueError(f"{where}: expected names among {sorted(known)}, got {unknown!r}")
    return kind(**values)
