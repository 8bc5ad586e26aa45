"""The main job from bucket to bucket: the local result, under faults too; what it asks for, and when it must stop."""

import importlib
import pickle
import re
import subprocess
import sys
from collections import Counter

import pytest
from s3_on_loopback import KEY, SECRET

from flows.evaluation.report import ReportOn, report_page
from flows.execution.pools import AHEAD
from flows.jobs import SegmentJob, job
from flows.segmentation.estimate import estimate
from flows.segmentation.existing import MANY, find_existing
from flows.segmentation.image_job import ImageJob
from flows.segmentation.plan import make_plan
from flows.segmentation.run import segment
from pipeline.errors import RunConflict
from pipeline.report.page import html_page
from pipeline.store import ledger
from pipeline.store.ome.image_writing import create_plate, write_image
from pipeline.store.places.address import address
from pipeline.store.places.faults import StoreLost
from pipeline.store.places.traffic import take_counts

TILING = {"core": 64, "halo": 16}


@pytest.fixture
def plates(cloud, monkeypatch, noise, tmp_path):
    """The same plate on a disk and in a bucket, and how the server behaves."""
    monkeypatch.setattr(ledger, "BEAT_S", 3600)  # the lock's heartbeat counts time, not tiles
    bucket, behaviour = cloud
    local = address(tmp_path / "p.zarr")
    for place in (local, bucket):
        for seed, path in enumerate(create_plate(place, name="p", wells=[("A", "1", 1)])):
            write_image(place, path, noise((192, 192), seed=seed)[None], chunks=(64, 64))
    behaviour.reset()
    take_counts()
    return local, bucket, behaviour


def outcome(place):
    """Everything a reader sees of labels and tables."""
    keys = [key for key in place.list() if "/labels/" in key or "/tables/" in key]
    return {key: place.read_bytes(key) for key in keys if not key.startswith(".platelayer")}


def beside(place):
    """Another store, so that nothing says where the images were."""
    return place.url.replace("p.zarr", "out.zarr")


def a_job(source, segmenter, **changes):
    table = {"source": str(source), "segmenter": segmenter, "name": "n", "tiling": TILING}
    return job(SegmentJob, table | changes)


def test_a_tile_is_read_while_another_is_in_the_network(plates, module_of, monkeypatch):
    local, bucket, _ = plates
    name = module_of("""
        import threading, time

        alone, reads, seen, wait_s = threading.Lock(), [], [], 0

        def slow(block):
            assert alone.acquire(blocking=False), "two tiles in one network"
            end = time.monotonic() + wait_s
            while len(reads) < min(len(seen) + 2, 9) and time.monotonic() < end:
                time.sleep(0.01)
            seen.append(len(reads))
            alone.release()
            return block[:1] > 0.5

        slow.link, slow.layers = "touch", 1
    """)
    module, read = importlib.import_module(name), ImageJob.read
    monkeypatch.setattr(ImageJob, "read", lambda *given: module.reads.append(given) or read(*given))
    for place, wait_s, ahead in ((local, 0.1, 1), (bucket, 20, 2)):
        module.wait_s = wait_s
        del module.reads[:], module.seen[:]
        table = {"normalise": {"kind": "none"}, "tiling": {"core": 64, "halo": 0}, "output": beside(place)}
        segment(a_job(place, f"{name}:slow", **table))
        # Tiles that were read when each of the nine came out of the network.
        assert module.seen == [min(number + ahead, 9) for number in range(9)]


@pytest.mark.parametrize("client", ["s3fs", "obstore"])
def test_a_run_under_faults_gives_the_local_bytes_counts_all_and_tells_no_secret(
    plates, bright, monkeypatch, caplog, client
):
    local, bucket, behaviour = plates
    segment(a_job(local, bright, output=beside(local)))
    monkeypatch.setenv("PLATELAYER_OBJECT_STORE", client)
    out = address(beside(bucket))
    behaviour.reset(share=0.1, seed=2)
    take_counts()
    record = segment(a_job(bucket, bright, output=str(out)))
    seen, faults, resets = len(behaviour.requests), len(behaviour.faults), behaviour.faults.count("reset")
    rest = take_counts()  # the record's own PUT and the lock's end come after it
    behaviour.reset()
    assert record.status == "complete" and faults > 5
    assert outcome(out) == outcome(address(beside(local)))
    # A connection that breaks before an answer came is opened again below all that can be watched.
    assert seen - resets <= record.requests.total + rest.total <= seen
    # A delayed answer is no fault for a client; every other one was asked for again.
    assert 0.4 * faults <= record.requests.retries + rest.retries <= faults
    assert record.requests.bytes_in > 50_000 and record.requests.bytes_out > 5_000
    page = html_page(report_page(ReportOn(store=str(out), name="n")))
    assert "Object storage" in page
    kept = [out.read_bytes(f".platelayer/{key}") for key in out.list(".platelayer")]
    told = page + caplog.text + str(kept)
    told += str(pickle.dumps(make_plan(a_job(bucket, bright, output=str(out)))))
    assert SECRET not in told and KEY not in told


def test_requests_per_tile_and_per_image(plates, bright):
    _, bucket, _ = plates
    spent = {}
    for core in (64, 32):
        out = bucket.url.replace("p.zarr", f"out{core}.zarr")
        record = segment(a_job(bucket, bright, output=out, tiling={"core": core, "halo": 16}))
        spent[core] = record
    few, many = spent[64].requests, spent[32].requests
    tiles, chunks = 9, 9
    # A tile writes its mask and its mark, and its mask is read once; its pixels were read for the limits.
    assert many.total - few.total == 3 * (36 - tiles)
    of = {stage: spent[64].traffic[stage]["requests"] for stage in ("limits", "predict", "describe")}
    assert of["limits"] == {"GET": chunks}
    assert of["predict"] == {"PUT": 2 * tiles + 1, "LIST": 1}  # and the limits
    assert of["describe"] == {"GET": tiles, "PUT": 2, "LIST": 1}
    # What an image costs beside its tiles does not grow by accident; twelve are for the table of the plate.
    assert few.requests.get("HEAD", 0) == 0
    assert few.total - 3 * tiles - chunks <= 112 + 12


def test_requests_per_field(cloud, bright, noise, monkeypatch):
    monkeypatch.setattr(ledger, "BEAT_S", 3600)
    place, behaviour = cloud
    spent = {}
    for number in (2, 6):
        plate = address(place.url.replace("p.zarr", f"{number}.zarr"))
        for path in create_plate(plate, name="p", wells=[("A", "1", number)]):
            write_image(plate, path, noise((64, 64))[None], chunks=(64, 64))
        take_counts()
        behaviour.reset()
        assert segment(a_job(plate, bright, tiling={})).status == "complete"
        spent[number] = Counter(method for method, _ in behaviour.requests)
    more = {kind: (spent[6][kind] - spent[2][kind]) / 4 for kind in ("GET", "PUT", "POST", "DELETE", "HEAD")}
    # Two layers of labels: three files each; the table and its group, two listings, the mark.
    assert more["PUT"] == 2 * 3 + 2 + 2 + 1
    # Its table is read once more, for that of the plate.
    assert more["GET"] <= 17 and more["POST"] == more["DELETE"] == more["HEAD"] == 0


@pytest.mark.parametrize("apart", [False, True])
def test_requests_of_planning_per_field(apart, cloud, bright, noise):
    place, behaviour = cloud
    spent = {}
    for wells in (MANY, MANY + 8):
        plate = address(place.url.replace("p.zarr", f"{wells}.zarr"))
        fields = [("A", str(well), 1) for well in range(1, wells + 1)]
        for path in create_plate(plate, name="p", wells=fields):
            write_image(plate, path, noise((16, 16))[None], chunks=(16, 16))
        behaviour.reset()
        plan = make_plan(
            a_job(plate, bright, output=plate.url.replace(".zarr", "-out.zarr") if apart else None)
        )
        existing = find_existing(plan)
        existing.check_names(existing.todo)
        spent[wells] = Counter(method for method, _ in behaviour.requests)
    more = {kind: (spent[MANY + 8][kind] - spent[MANY][kind]) / 8 for kind in spent[MANY]}
    # The well, the image, its array; what is there already is told by listings.
    assert more == {"GET": 3} or more == {"GET": 3, "LIST": 0}
    assert spent[MANY].total() <= 3 * MANY + 12


def test_a_large_plate_goes_on_where_it_was_and_keeps_what_is_there(cloud, counted, noise):
    place, _ = cloud
    name, calls = counted
    fields = [("A", str(well), 1) for well in range(1, MANY + 1)]
    for path in create_plate(place, name="p", wells=fields):
        write_image(place, path, noise((16, 16))[None], chunks=(16, 16))
    out = place.url.replace("p.zarr", "out.zarr")
    first = segment(a_job(place, name, output=out))
    assert first.status == "complete" and len(first.images) == MANY
    done, before = calls(), outcome(address(out))
    assert segment(a_job(place, name, output=out)).status == "unchanged" and calls() == done
    address(out).remove("A/3/0/labels")
    assert segment(a_job(place, name, output=out)).status == "complete"
    assert outcome(address(out)) == before
    with pytest.raises(RunConflict, match="are there already"):
        segment(a_job(place, name, output=out, filters={"min_area": 3}))


def test_shards_are_read_whole(cloud, bright, noise):
    place, behaviour = cloud
    write_image(place, "", noise((256, 256))[None], chunks=(32, 32), shards=(128, 128))
    behaviour.reset()
    segment(a_job(place, bright, output=beside(place)))
    read = [path for method, path in behaviour.requests if method == "GET" and "p.zarr/0/c/" in path]
    # The look at the segmenter takes ranges of the four; then each is fetched once, for all stages.
    assert sorted(read[-4:]) == sorted(set(read)) and len(set(read)) == 4


def test_requests_of_dask_workers_are_in_the_record(plates, bright):
    _, bucket, behaviour = plates
    behaviour.reset()
    record = segment(
        a_job(bucket, bright, output=beside(bucket),
              execution={"executor": "dask", "workers": 1})
    )  # fmt: skip
    seen, rest = len(behaviour.requests), take_counts()
    assert record.status == "complete"
    assert record.traffic["predict"]["requests"]["PUT"] >= 2 * 9
    assert record.requests.total + rest.total == seen


def test_credentials_that_expire_stop_the_run_which_goes_on_later(plates, counted, monkeypatch):
    local, bucket, behaviour = plates
    name, calls = counted
    segment(a_job(local, name, output=beside(local)))
    whole = calls()
    marks = []

    def expire_after_four_tiles(method, path):
        marks.extend(["mark"] if method == "PUT" and "done/predict" in path else [])
        return "expired" if len(marks) > 4 else None

    out = beside(bucket)
    with monkeypatch.context() as patched:
        patched.setattr(behaviour, "next_fault", expire_after_four_tiles)
        with pytest.raises(StoreLost, match=r"s3://.*credentials have expired; renew them and give the same"):
            segment(a_job(bucket, name, output=out))
    tried = calls() - whole
    assert 4 < tried <= 4 + 3 * AHEAD  # those in flight, and again for each retry
    record = segment(a_job(bucket, name, output=out))
    assert record.status == "complete" and not record.failures
    assert calls() - whole - tried == whole - 4  # tiles that have their mark are not done again
    assert outcome(address(out)) == outcome(address(beside(local)))


def test_the_command_says_what_it_took_and_leaves_no_connection_open(plates, bright):
    _, bucket, _ = plates
    words = ["segment", str(bucket), "--segmenter", bright, "--name", "n"]
    code = "import sys; from flows.cli import main; sys.path.insert(0, ''); main()"
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and "object storage: " in done.stdout
    assert "Unclosed" not in done.stderr


@pytest.mark.parametrize("core", [64, 256])
def test_the_dry_run_says_within_a_fifth_what_a_run_then_asks_for(core, plates, bright):
    _, bucket, behaviour = plates
    work = a_job(bucket, bright, output=beside(bucket), tiling={"core": core, "halo": 16})
    said = re.search(r"requests +about ([\d,]+) .*\), ([\d.]+) MiB in, ([\d.]+) MiB out", estimate(work))
    assert {method for method, _ in behaviour.requests} == {"GET"}
    record = segment(work)
    requests, read, written = (float(text.replace(",", "")) for text in said.groups())
    assert requests == pytest.approx(record.requests.total, rel=0.2)
    # Of what is read, metadata are not counted: of one small image they are a fifth.
    assert read * 2**20 == pytest.approx(record.requests.bytes_in, rel=0.2, abs=25_000)
    assert written * 2**20 == pytest.approx(record.requests.bytes_out, rel=0.2)
