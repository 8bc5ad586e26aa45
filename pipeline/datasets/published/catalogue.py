"""The datasets platelayer can read, by name.

The invariant: a module of this folder is imported only when its dataset is used. Name, authors and licence of a dataset
are in its module.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import import_module
from types import ModuleType

from pipeline.datasets.sample import Sample
from pipeline.errors import BadArgument


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """A dataset by the name of its module in this folder."""

    name: str
    """What it is called on the command line."""

    @property
    def _module(self) -> ModuleType:
        return import_module(f"pipeline.datasets.published.{self.name}")

    @property
    def title(self) -> str:
        """Its full name."""
        return self._module.TITLE

    @property
    def citation(self) -> str:
        """What to cite."""
        return self._module.CITATION

    @property
    def licence(self) -> str:
        """Under which terms it may be used."""
        return self._module.LICENCE

    @property
    def urls(self) -> tuple[str, ...]:
        """Where to get it."""
        return self._module.URLS

    @property
    def checksums(self) -> dict[str, str]:
        """Known checksums, ``algorithm:hex`` by name of the archive; empty where none is known."""
        return self._module.CHECKSUMS

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of its splits."""
        return self._module.SPLITS

    @property
    def read(self) -> Callable[..., Iterator[Sample]]:
        """``read(source, *, split="all", ...)``, which yields its samples."""
        return self._module.read


_NAMES = (
    "ac3ac4",
    "bbbc010",
    "bbbc039",
    "ccdb6843",
    "cvppp",
    "dsb2018",
    "isbi2012",
    "isbi2014",
    "mfish",
)
DATASETS: dict[str, Dataset] = {name: Dataset(name=name) for name in _NAMES}


def dataset(name: str) -> Dataset:
    """Return a dataset by name; an unknown one is a BadArgument that suggests the nearest."""
    if name in DATASETS:
        return DATASETS[name]
    near = get_close_matches(name.lower(), DATASETS, n=1, cutoff=0.4)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise BadArgument(f"expected a dataset out of {', '.join(DATASETS)}, got {name!r}{hint}")
