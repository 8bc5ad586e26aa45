"""The main job from bucket to bucket on real wells of BBBC010: the same bytes as on the disk, also under faults.

    python benchmarks/archive.py ../shared/data/bbbc010 [--wells 4] [--split validation] [--seed 0]

A plate of some wells is segmented from disk to disk, then from bucket to bucket (an S3 server on loopback): with
the default executor, with Dask workers, with obstore, and while a tenth of all requests fails. Writes
benchmarks/results/archive.json: requests by kind, bytes, retries, seconds, and whether all bytes of labels and
tables are those of the local run.
"""

import argparse
import os
import re
import sys
import tempfile
import time
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

from machine import machine, write_result

from flows.ingest.samples import ingest_samples
from flows.jobs import SegmentJob, job
from flows.segmentation.run import segment
from pipeline.datasets.published.catalogue import dataset
from pipeline.store.places.address import Address, address

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from s3_on_loopback import BUCKET, ProxyServer, environment, s3_on_loopback

RUNS: dict[str, dict[str, Any]] = {
    "s3": {},
    "s3, dask": {"executor": "dask", "workers": 2},
    "s3, obstore": {"client": "obstore"},
    "s3, 10 % of requests fail": {"share": 0.1},
    "s3, dask, 10 % of requests fail": {"executor": "dask", "workers": 2, "share": 0.1},
}
"""What is run from bucket to bucket, beside the run on the disk."""


def main() -> None:
    """Measure and keep the result."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", type=Path)
    parser.add_argument("--split", default="validation", choices=("train", "validation"))
    parser.add_argument("--wells", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, s3_on_loopback() as server:
        os.environ.update(environment(server))
        os.environ.pop("AWS_PROFILE", None)
        write_result("archive", measured(Path(folder), server, chosen))


def measured(folder: Path, server: ProxyServer, chosen: argparse.Namespace) -> dict[str, Any]:
    """Run everything and compare."""
    plate = folder / "plate.zarr"
    samples = dataset("bbbc010").read(chosen.source, split=chosen.split)
    ingested = ingest_samples(islice(samples, chosen.wells), str(plate))
    copied = address(f"s3://{BUCKET}/plate.zarr")
    for key in address(plate).list():
        copied.write_bytes(key, address(plate).read_bytes(key))
    started = time.perf_counter()
    local = segmented(str(plate), str(folder / "out.zarr"))
    seconds = round(time.perf_counter() - started, 1)
    expected = results(address(folder / "out.zarr"))
    result: dict[str, Any] = {
        "machine": machine(chosen.seed), "split": chosen.split, "wells": ingested.images,
        "objects": local.objects, "files_compared": len(expected),
        "local": {"seconds": seconds, "status": local.status},
    }  # fmt: skip
    for number, (name, how) in enumerate(RUNS.items()):
        output = address(f"s3://{BUCKET}/out{number}.zarr")
        result[name] = one_run(str(copied), output, server, chosen.seed, **how)
        result[name]["identical"] = results(output) == expected
    return result


def one_run(
    source: str,
    output: Address,
    server: ProxyServer,
    seed: int,
    *,
    share: float = 0.0,
    client: str = "s3fs",
    **execution: Any,
) -> dict[str, Any]:
    """Run once from bucket to bucket; what it counted, and what the server saw."""
    os.environ["PLATELAYER_OBJECT_STORE"] = client
    server.behaviour.reset(share=share, seed=seed)
    started = time.perf_counter()
    record = segmented(source, str(output), execution=execution)
    seconds = round(time.perf_counter() - started, 1)
    seen = {"requests": len(server.behaviour.requests), "faults": len(server.behaviour.faults)}
    server.behaviour.reset()
    os.environ["PLATELAYER_OBJECT_STORE"] = "s3fs"
    counted = {"total": record.requests.total, **asdict(record.requests)}
    return {"seconds": seconds, "status": record.status, "counted": counted, "seen_by_the_server": seen}


def segmented(source: str, output: str, **changes: Any) -> Any:
    """Segment with the shipped network for worms."""
    table = {"source": source, "output": output, "model": "worms", "tiling": {"core": 256}}
    return segment(job(SegmentJob, {**table, **changes}))


def results(store: Address) -> dict[str, bytes]:
    """Everything a reader sees of labels and tables."""
    wanted = re.compile(r"(^|/)(labels|tables)/")
    return {
        key: store.read_bytes(key)
        for key in store.list()
        if wanted.search(key) and not key.startswith(".platelayer")
    }


if __name__ == "__main__":
    main()
