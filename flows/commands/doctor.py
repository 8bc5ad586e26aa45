"""`platelayer doctor`: a check of the installation and of the machine."""

import importlib
import importlib.metadata
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from rich.console import Console

CAPS = {"fastapi": (0, 155), "sqlalchemy": (2, 1), "pydantic": (2, 13)}
"""First versions with which today's Prefect or ome-zarr-models break; see constraints.txt."""

NEEDED = (
    "numpy",
    "scipy",
    "zarr",
    "numcodecs",
    "torch",
    "dask",
    "distributed",
    "prefect",
    "pandas",
    "pyarrow",
    "s3fs",
)


def doctor() -> int:
    """Check this installation and this machine."""
    console = Console(file=sys.stdout, highlight=False, soft_wrap=True)
    bad = 0
    for name, check in CHECKS.items():
        try:
            state, text = check()
        except Exception as error:
            state, text = "bad", f"{type(error).__name__}: {error}"
        bad += state == "bad"
        console.print(f"{state:>4}  {name}: {text}", markup=False)
    console.print("fit" if not bad else f"{bad} thing(s) to mend", markup=False)
    return 1 if bad else 0


def _packages() -> tuple[str, str]:
    missing, installed = [], []
    for name in NEEDED:
        try:
            installed.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            missing.append(name)
    return ("bad", f"missing: {', '.join(missing)}") if missing else ("ok", ", ".join(installed))


def _caps() -> tuple[str, str]:
    broken = []
    for name, cap in CAPS.items():
        version = importlib.metadata.version(name)
        if tuple(int(part) for part in version.split(".")[: len(cap)] if part.isdigit()) >= cap:
            broken.append(f"{name} {version} (needs < {'.'.join(map(str, cap))})")
    return (
        ("bad", f"{', '.join(broken)}: install with -c constraints.txt")
        if broken
        else ("ok", "within the caps")
    )


def siblings() -> tuple[str, str]:
    """The packages are siblings and belong to this distribution: no other ``model`` shadows ours."""
    names = ("platelayer", "flows", "model", "pipeline")
    packages = [importlib.import_module(name) for name in names]
    folders = {Path(package.__file__ or "").parent.parent for package in packages}
    owners = importlib.metadata.packages_distributions()
    strangers = [name for name in names if set(owners.get(name, ["platelayer"])) != {"platelayer"}]
    if len(folders) > 1 or strangers:
        return (
            "bad",
            f"pipeline, model and flows come from {', '.join(map(str, folders))}; another package shadows ours",
        )
    return "ok", f"pipeline, model and flows from {folders.pop()}"


def _gpu() -> tuple[str, str]:
    import torch

    if not torch.cuda.is_available():
        return (
            "note",
            f"none; networks run on the CPU (torch {torch.__version__}, {torch.get_num_threads()} threads)",
        )
    names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return "ok", ", ".join(names)


def _arithmetic() -> tuple[str, str]:
    from model.devices import choose_device, has_instructions

    if has_instructions(choose_device(), "bfloat16"):
        return "ok", "bfloat16 where the card of a model chose it, else float32"
    return "note", "float32; no instructions for bfloat16"


def _models() -> tuple[str, str]:
    from model.card import read_card, shipped

    names = [f"{name} ({read_card(folder)['digest'][:8]})" for name, folder in shipped().items()]
    return ("ok", ", ".join(names)) if names else ("bad", "no shipped model found; install again")


def _cores() -> tuple[str, str]:
    from flows.execution.executors import usable_cores

    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return "ok", f"{usable_cores()} usable of {os.cpu_count()}, {memory:.0f} GiB memory"


def _temp() -> tuple[str, str]:
    place = tempfile.gettempdir()
    free = shutil.disk_usage(place).free / 2**30
    return ("ok" if free > 2 else "bad"), f"{free:.0f} GiB free in {place}"


def _dask() -> tuple[str, str]:
    from flows.execution.pools import open_pool
    from flows.jobs import Execution

    with open_pool(Execution(executor="dask", workers=1)) as workers:
        answer = workers.cpu.submit(abs, -2).result(timeout=60)
    return (
        ("ok", "a worker process started and answered")
        if answer == 2
        else ("bad", "a worker gave a wrong answer")
    )


def _prefect() -> tuple[str, str]:
    from flows.execution.orchestrate import is_prefect_configured, reach_api

    if not is_prefect_configured():
        return "note", "no API configured; runs go without it (set PREFECT_API_URL to use a server)"
    return "ok", f"API answers at {reach_api()}"


CHECKS: dict[str, Callable[[], tuple[str, str]]] = {
    "packages": _packages,
    "version caps": _caps,
    "installation": siblings,
    "cores": _cores,
    "temp space": _temp,
    "GPU": _gpu,
    "arithmetic": _arithmetic,
    "models": _models,
    "Dask": _dask,
    "Prefect": _prefect,
}
