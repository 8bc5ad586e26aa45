"""The packages whose networks can be used, by the prefix of their names: ``stardist:2D_versatile_fluo``."""

import importlib

from model.adapters.adapter import Adapter, Settings

PACKAGES = {
    "cellpose": "model.adapters.cellpose",
    "stardist": "model.adapters.stardist",
    "instanseg": "model.adapters.instanseg",
    "bioimageio": "model.adapters.bioimageio",
}
"""Module of each adapter; imported when it is asked for."""


def is_adapter(reference: str) -> bool:
    """Whether a segmenter is the network of another package, not a function ``module:name`` of the user."""
    package, colon, name = reference.partition(":")
    return package in PACKAGES and bool(colon and name)


def load_adapter(reference: str, *, device: str = "auto", settings: Settings | None = None) -> Adapter:
    """Load the network of another package, such as ``cellpose:cpsam`` or ``stardist:/path/of/model``.

    Raises:
        BadCheckpoint: the package is missing, or there are no such weights.
        ValueError: a setting that the adapter does not have.
        NoDevice: the device is not available.
    """
    package, _, name = reference.partition(":")
    module = importlib.import_module(PACKAGES[package])
    adapter: Adapter = module.load(name, device=device, settings=settings or {})
    return adapter
