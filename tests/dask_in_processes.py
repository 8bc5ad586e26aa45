"""A Dask cluster as an administrator would start it, for tests: commands with their own folder and environment."""

import os
import socket
import subprocess
import sys


def free_port():
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        return place.getsockname()[1]


class Cluster:
    """`dask scheduler` and `dask worker` as processes."""

    def __init__(self, folder, protocol="tcp", **env):
        self.folder, self.address = folder, f"{protocol}://127.0.0.1:{free_port()}"
        self.env = {"PATH": os.environ["PATH"], "HOME": str(folder), "OMP_NUM_THREADS": "1", **env}
        self.running = []

    def start(self, *words, **env):
        place = self.folder / f"process{len(self.running)}"
        place.mkdir()
        command = [sys.executable, "-m", "dask", *words]
        with open(place / "log", "w") as log:
            process = subprocess.Popen(command, cwd=place, env=self.env | env, stdout=log, stderr=log)
        self.running.append(process)
        return process

    def scheduler(self):
        port = self.address.rpartition(":")[2]
        protocol = self.address.partition(":")[0]
        return self.start(
            "scheduler", "--host", "127.0.0.1", "--port", port, "--protocol", protocol, "--no-dashboard"
        )

    def worker(self, *more, **env):
        words = (
            "--nthreads",
            "1",
            "--no-nanny",
            "--no-dashboard",
            "--memory-limit",
            "0",
            "--host",
            "127.0.0.1",
        )
        return self.start("worker", self.address, *words, *more, **env)

    def stop(self):
        for process in self.running:
            process.kill()
            process.wait()
