"""What a command imports before it does anything: libraries that take long to import are left to those that need them.

Modules are counted and not seconds, which depend on the machine.
"""

import subprocess
import sys

READS_PIXELS = {"zarr", "numcodecs", "fsspec", "s3fs", "botocore", "obstore", "asyncio"}
COMPUTES = {"scipy", "skimage", "pandas", "pyarrow", "torch", "safetensors"}
RUNS = {"dask", "distributed", "prefect", "pydantic"}

CODE = """
import sys
from flows.cli import run
code = run(sys.argv[1:])
print(*sys.modules, sep="\\n")
sys.exit(code)
"""


def imported_by(*words):
    """Names of all modules that are there when a command is done."""
    done = subprocess.run([sys.executable, "-c", CODE, *words], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines())


def test_help_needs_no_library_of_numbers():
    assert not imported_by("--help") & {"numpy", *READS_PIXELS, *COMPUTES, *RUNS}


def test_inspect_needs_numpy_alone(plate_at, noise):
    store = plate_at("p.zarr", {"A/1": [noise((40, 50))]})
    imported = imported_by("inspect", str(store))
    assert "numpy" in imported
    assert not imported & (READS_PIXELS | COMPUTES | RUNS)


def test_help_of_segment_starts_no_network_and_no_cluster():
    assert not imported_by("segment", "--help") & {"torch", "dask", "distributed", "prefect", "pandas"}


def test_a_run_needs_neither_pandas_nor_a_cluster_nor_torch(plate_at, noise):
    store = plate_at("p.zarr", {"A/1": [noise((40, 50))], "A/2": [noise((40, 50), seed=1)]})
    imported = imported_by("segment", str(store), "--segmenter", "threshold")
    assert not imported & {"torch", "dask", "distributed", "prefect", "pandas"}
