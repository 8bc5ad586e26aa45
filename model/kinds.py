"""The table of methods, and how one is made from the plain values of a recipe or card."""

import importlib.util
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from model.method import Method
from model.methods.affinity import Affinity
from model.methods.dcme import Dcme
from model.methods.layering import Layering
from model.methods.maskrcnn import MaskRcnn
from model.methods.stardist import StarDist
from model.methods.unet2 import UNet2
from model.methods.unet3 import UNet3

KINDS: dict[str, type[Method]] = {
    "affinity": Affinity,
    "layering": Layering,
    "unet2": UNet2,
    "unet3": UNet3,
    "dcme": Dcme,
    "stardist": StarDist,
    "maskrcnn": MaskRcnn,
}
"""Every method by its name; a new one is a line here."""


def method_from(values: Mapping[str, Any]) -> Method:
    """Make a method from plain values: ``kind`` (default: layering), its settings and the table ``shape``.

    Settings that ``shape`` leaves out are those of the method's default network.

    Raises:
        ValueError: an unknown kind or name, or a value that the method refuses.
    """
    settings = dict(values)
    name = settings.pop("kind", "layering")
    if name not in KINDS:
        raise ValueError(f"method.kind: expected one of {sorted(KINDS)}, got {name!r}")
    kind = KINDS[name]
    _check_packages(kind)
    usual = kind().shape
    shape = made(type(usual), usual.as_dict() | dict(settings.pop("shape", {})), "method.shape")
    method: Method = made(kind, settings | {"shape": shape}, "method")
    return method


def _check_packages(kind: type[Method]) -> None:
    for module, extra in kind.packages.items():
        if importlib.util.find_spec(module) is None:
            raise ValueError(
                f"method {kind.kind!r}: expected the package {module}, but it is not installed; "
                f"install platelayer[{extra}]"
            )


def made(kind: Any, values: Mapping[str, Any], where: str) -> Any:
    """Make a dataclass from plain values; unknown names are refused."""
    known = {entry.name for entry in fields(kind)}
    unknown = sorted(set(values) - known)
    if unknown:
        raise ValueError(f"{where}: expected names among {sorted(known)}, got {unknown!r}")
    return kind(**values)
