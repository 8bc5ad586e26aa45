"""A cluster as an administrator would start it: commands with their own folder and environment.

Scheduler and workers share nothing with the run but the stores. A worker is killed and replaced in mid-run; the
network's tiles go to workers with a GPU; the connection is encrypted.
"""

import datetime
import shutil
import time

import dask
import pytest
from dask_in_processes import Cluster

from pipeline.errors import RunConflict

pytestmark = pytest.mark.timeout(900)  # half a minute on a free machine; a busy one is slow, not wrong

SOURCE = """
import time

def slow(block):
    time.sleep(0.05)
    return block[:1] > 0.5

slow.link, slow.layers = "touch", 1
"""

NOTES = """
import os
from distributed.diagnostics.plugin import WorkerPlugin

class Notes(WorkerPlugin):
    name = "notes"

    def transition(self, key, start, finish, **_):
        if finish == "executing":
            with open(os.environ["NOTES"], "a") as notes:
                notes.write(f"{os.environ['MARK']} {key.partition('-')[0]}\\n")

async def dask_setup(worker):
    await worker.plugin_add(Notes())
"""
"""Loaded into workers: who began which task."""


@pytest.fixture
def cluster_of(tmp_path, monkeypatch):
    """Start scheduler and workers: `cluster_of(workers=2, protocol="tls", ...)`."""
    modules = tmp_path / "modules"
    modules.mkdir()
    (modules / "slow_segmenter.py").write_text(SOURCE)
    (modules / "notes.py").write_text(NOTES)
    monkeypatch.syspath_prepend(str(modules))
    monkeypatch.setattr("flows.execution.clusters.CONNECT_S", 120)
    made = []

    def make(workers, **options):
        place = tmp_path / "cluster"
        place.mkdir()
        cluster = Cluster(place, PYTHONPATH=str(modules), **options)
        made.append(cluster)
        cluster.scheduler()
        for number in range(workers):
            cluster.worker(MARK=str(number))
        return cluster

    yield make
    for cluster in made:
        cluster.stop()


@pytest.fixture
def plate(plate_at, noise):
    return plate_at("p.zarr", {"A/1": [noise((160, 160), seed=1)], "B/2": [noise((160, 160), seed=2)]})


class Replacing:
    """A progress that kills a worker after a few tiles, and starts another where ``new`` marks one."""

    def __init__(self, cluster, after, kill, new=("new",)):
        self.cluster, self.left, self.kill, self.new = cluster, after, kill, new

    def start(self, stage, total):
        pass

    def advance(self, stage, item):
        self.left -= stage == "predict"
        if self.left == 0:
            self.kill.kill()
            for mark in self.new:
                self.cluster.worker(MARK=mark)
            self.left = -1

    def finish(self, stage):
        pass


TILES = 2 * 25

TABLE = {"segmenter": "slow_segmenter:slow", "name": "n", "tiling": {"core": 32}}


def test_a_worker_is_killed_and_replaced_in_mid_run(cluster_of, plate, run_job, files_of, tmp_path):
    cluster = cluster_of(2)
    shutil.copytree(plate, tmp_path / "serial.zarr")
    run_job(tmp_path / "serial.zarr", **TABLE)
    replacing = Replacing(cluster, after=6, kill=cluster.running[1])
    record = run_job(plate, progress=replacing, execution={"executor": cluster.address}, **TABLE)
    assert replacing.left < 0 and cluster.running[1].poll() is not None
    assert record.status == "complete" and not record.failures
    assert files_of(plate, "n") == files_of(tmp_path / "serial.zarr", "n")


def test_the_network_runs_on_gpu_workers_and_the_rest_anywhere(
    cluster_of, plate, run_job, files_of, tmp_path, monkeypatch
):
    """The resource decides, not the hardware: there is no GPU here, and the segmenter needs none."""
    notes = tmp_path / "notes"
    cluster = cluster_of(0, NOTES=str(notes))
    preload = ("--preload", "notes")
    cluster.worker(*preload, MARK="cpu")
    gpu = cluster.worker(*preload, "--resources", "GPU=1", MARK="gpu")
    execution = {"executor": cluster.address, "device": "cuda"}
    wait_for_workers(cluster.address, 2)
    shutil.copytree(plate, tmp_path / "serial.zarr")
    run_job(tmp_path / "serial.zarr", **TABLE)
    shutil.copytree(plate, tmp_path / "again.zarr")

    assert run_job(plate, execution=execution, **TABLE).status == "complete"
    assert files_of(plate, "n") == files_of(tmp_path / "serial.zarr", "n")
    did = [tuple(line.split()) for line in notes.read_text().splitlines()]
    assert {who for who, what in did if what in ("predict", "ready")} == {"gpu"}
    assert sum(what == "predict" for _, what in did) == TILES
    assert {what for who, what in did if who == "cpu"} & {"describe_unit", "join_image", "paint_block"}

    # A GPU worker that goes for good ends the run, although another worker is there; the same command goes on.
    monkeypatch.setattr("flows.execution.windows.POLL_S", 0.2)
    monkeypatch.setattr("flows.execution.clusters.ALONE_S", 0.5)
    stopping = Replacing(cluster, after=6, kill=gpu, new=())
    with pytest.raises(RunConflict, match="no Dask worker with a GPU"):
        run_job(tmp_path / "again.zarr", progress=stopping, execution=execution, **TABLE)
    monkeypatch.setattr("flows.execution.clusters.ALONE_S", 60)
    cluster.worker(*preload, "--resources", "GPU=1", MARK="gpu")
    wait_for_workers(cluster.address, 2)
    assert run_job(tmp_path / "again.zarr", execution=execution, **TABLE).status == "complete"
    assert files_of(tmp_path / "again.zarr", "n") == files_of(plate, "n")


def wait_for_workers(address, count):
    from distributed import Client

    with Client(address, timeout=120) as client:
        client.wait_for_workers(count, timeout=120)


def test_an_encrypted_connection_and_no_way_around_it(cluster_of, plate, run_job, tmp_path, monkeypatch):
    certificate, key = self_signed(tmp_path)
    names = {"ca-file": certificate} | {
        f"{role}.{what}": file
        for role in ("client", "scheduler", "worker")
        for what, file in (("cert", certificate), ("key", key))
    }
    settings = {f"distributed.comm.tls.{name}": str(file) for name, file in names.items()}
    env = {
        "DASK_" + name.upper().replace(".", "__").replace("-", "_"): value for name, value in settings.items()
    }
    cluster = cluster_of(1, protocol="tls", DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION="true", **env)
    with dask.config.set(settings):
        record = run_job(plate, execution={"executor": cluster.address}, **TABLE)
    assert record.status == "complete"
    monkeypatch.setattr("flows.execution.clusters.CONNECT_S", 5)
    plain = cluster.address.replace("tls://", "tcp://")
    with pytest.raises(RunConflict, match="no Dask scheduler answered"):
        run_job(plate, execution={"executor": plain}, **TABLE | {"name": "other"})
    began = time.monotonic()
    with pytest.raises(RunConflict, match="no Dask scheduler answered"):
        run_job(plate, execution={"executor": cluster.address}, **TABLE | {"name": "other"})
    assert time.monotonic() - began < 60


def self_signed(folder):
    """A certificate that is its own authority, for loopback."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "platelayer test")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1)).not_valid_after(now + datetime.timedelta(hours=2))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    pem = serialization.Encoding.PEM
    secret = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "tls.pem").write_bytes(made.public_bytes(pem))
    (folder / "tls.key").write_bytes(secret)
    return folder / "tls.pem", folder / "tls.key"
