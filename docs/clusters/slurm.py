"""SLURM through dask-jobqueue: workers come and go as jobs of their own.

pip install -c constraints.txt '.[cluster]'
python slurm.py plate.zarr --output out.zarr      # on a node that may submit jobs
"""

import os
import subprocess
import sys

from dask_jobqueue import SLURMCluster

GPU = os.environ.get("PLATELAYER_GPUS") == "1"


def workers() -> SLURMCluster:
    """Scheduler in this process, workers as jobs; `workers().job_script()` shows one."""
    # One thread per process on CPUs; on a GPU node three, of which one is in the network.
    return SLURMCluster(
        queue=os.environ.get("PLATELAYER_QUEUE"),
        cores=3 if GPU else 8,
        processes=1 if GPU else 8,
        memory="32GB",
        walltime="04:00:00",
        job_extra_directives=["--gres=gpu:1"] if GPU else [],
        # The last --memory-limit counts: Dask's own would pause workers for the page cache (see docs/clusters.md).
        worker_extra_args=["--memory-limit", "0", *(["--resources", "GPU=1"] if GPU else [])],
        job_script_prologue=["export OMP_NUM_THREADS=1"],
    )


def main() -> int:
    """Start workers, run platelayer on them, end them."""
    with workers() as cluster:
        cluster.adapt(minimum_jobs=1, maximum_jobs=int(os.environ.get("PLATELAYER_JOBS", "4")))
        cluster.wait_for_workers(1)
        words = ["platelayer", "segment", *sys.argv[1:], "--executor", cluster.scheduler_address]
        return subprocess.run(words, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
