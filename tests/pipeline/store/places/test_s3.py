"""Object storage through a real S3 server on loopback, with a proxy before it that fails a share of the requests."""

import http.server
import json
import pickle
import socket
import subprocess
import sys
import threading
import time
import traceback
from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pytest
from s3_on_loopback import BUCKET, FAULTS, KEY, SECRET, Proxy

from pipeline.errors import BadArgument, BadStore
from pipeline.store.ome.collection import open_collection
from pipeline.store.ome.image_writing import create_plate, write_image
from pipeline.store.ome.labels import list_labels, read_stack, write_stack
from pipeline.store.ome.mirror import mirror
from pipeline.store.ome.tables import read_table, write_table
from pipeline.store.places import s3
from pipeline.store.places.address import address
from pipeline.store.places.faults import AccessDenied, StoreLost


@pytest.fixture
def archive(cloud, server):
    """A plate that no test changes, and how the server behaves."""
    place, behaviour = address(f"s3://{BUCKET}/shared/p.zarr"), cloud[1]
    if not hasattr(server, "archive"):
        server.archive = a_plate(place)
        behaviour.reset()
    return place, behaviour


def pixels(seed=0, shape=(1, 300, 200)):
    return np.random.default_rng(seed).integers(0, 4000, shape).astype("u2")


def a_plate(place):
    for seed, path in enumerate(create_plate(place, name="p", wells=[("A", "1", 1), ("B", "1", 1)])):
        write_image(place, path, pixels(seed), chunks=(128, 128))
    return open_collection(place)


def a_run(source, target):
    """What a run does with a store, in short."""
    collection = open_collection(source)
    mirror(collection, target)
    for image in collection.images:
        block = image.read((0, 0), (0,), 0, 300, 0, 200)
        stack = np.where(block > 3000, block, 0).astype(np.uint32)
        write_stack(target, image, stack, name="bright")
        write_table(target, image.path, "bright", pd.DataFrame({"label": np.unique(stack)}))


def contents(place):
    return {key: place.read_bytes(key) for key in place.list()}


def test_files_in_a_bucket_behave_like_files(cloud):
    place, _ = cloud
    assert place.list() == [] and not place.exists()
    place.write_bytes("a/x", b"1")
    place.write_bytes("a/zarr.json", b"{}")
    assert place.exists("a") and place.exists("a/x") and place.children() == ["a"]
    (before, _) = place.entries("a")
    place.write_bytes("a/x", b"2")
    assert place.entries("a")[0][:2] == before[:2] == ("x", 1)
    assert place.entries("a")[0][2] != before[2]
    place.move("a", "b/c")
    assert place.list() == ["b/c/x", "b/c/zarr.json"] and place.read_bytes_or_none("a/x") is None
    assert place.write_new("lock", b"1") and not place.write_new("lock", b"2")
    place.remove("b")
    assert place.list() == ["lock"]


@pytest.mark.parametrize("client", ["s3fs", "obstore"])
def test_a_run_from_bucket_to_bucket_equals_the_local_one(cloud, tmp_path, monkeypatch, client):
    place, _ = cloud
    local = address(tmp_path / "p.zarr")
    a_plate(local)
    monkeypatch.setenv("PLATELAYER_OBJECT_STORE", client)
    a_plate(place)
    assert contents(place) == contents(local)
    a_run(local, address(tmp_path / "out.zarr"))
    out = address(place.url.replace("p.zarr", "out.zarr"))
    a_run(place, out)
    assert contents(out) == contents(address(tmp_path / "out.zarr"))
    assert list_labels(out, "A/1/0") == ["bright"] and len(read_table(out, "A/1/0", "bright")) > 100


def test_ten_percent_of_faults_change_nothing(cloud, tmp_path):
    place, behaviour = cloud
    a_plate(address(tmp_path / "p.zarr"))
    a_run(address(tmp_path / "p.zarr"), address(tmp_path / "out.zarr"))
    out = address(place.url.replace("p.zarr", "out.zarr"))
    a_plate(place)
    behaviour.reset(share=0.1, seed=3)
    a_run(place, out)
    assert len(behaviour.faults) > 8 and set(behaviour.faults) == set(FAULTS)
    behaviour.reset()
    assert contents(place) == contents(address(tmp_path / "p.zarr"))
    assert contents(out) == contents(address(tmp_path / "out.zarr"))


@pytest.mark.parametrize("client", ["s3fs", "obstore"])
def test_reading_a_chunk_is_one_request(archive, monkeypatch, client):
    place, behaviour = archive
    monkeypatch.setenv("PLATELAYER_OBJECT_STORE", client)
    image = open_collection(place).images[0]
    travelled = pickle.loads(pickle.dumps(image))
    behaviour.reset()
    travelled.read((0, 0), (0,), 0, 128, 0, 200)
    travelled.read((0, 0), (0,), 10, 100, 0, 100)
    chunks = [path for method, path in behaviour.requests if method == "GET" and "/0/c/" in path]
    assert len(behaviour.requests) == len(chunks) == 3
    behaviour.reset()
    travelled.digest()
    assert len(behaviour.requests) == 1


def test_opening_a_plate_takes_few_requests(archive):
    place, behaviour = archive
    behaviour.reset()
    collection = open_collection(place)
    assert len(behaviour.requests) == 1 + 2 * (1 + 2)  # plate, then a well, an image and its array each
    behaviour.reset()
    collection.digests()
    assert len(behaviour.requests) == 1


def test_workers_elsewhere_find_the_store_by_its_address_alone(archive, tmp_path):
    place, _ = archive
    image = open_collection(place).images[1]
    (tmp_path / "image").write_bytes(pickle.dumps(image))
    code = "import pickle, sys; i = pickle.load(open(sys.argv[1], 'rb'))"
    code += "; print(i.read((0, 0), (0,), 0, 300, 0, 200).sum())"
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "image")], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.stdout.strip() == str(pixels(1).sum()), done.stderr
    assert SECRET.encode() not in pickle.dumps(image)


@pytest.mark.parametrize("how", ["asked for", "nothing found", "refused"])
def test_public_data_are_read_without_signing(archive, monkeypatch, how, server):
    place, _ = archive
    headers = []
    real = Proxy.forward
    monkeypatch.setattr(
        Proxy, "forward", lambda self, *a, **k: (headers.append(dict(self.headers)), real(self, *a, **k))
    )
    if how == "asked for":
        monkeypatch.setenv("PLATELAYER_S3_ANON", "1")
    elif how == "nothing found":
        monkeypatch.delenv("AWS_ACCESS_KEY_ID")
        monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    open_collection(place).images[0].read((0, 0), (0,), 0, 9, 0, 9)
    assert len(headers) > 5
    assert all(("Authorization" in sent) == (how == "refused") for sent in headers)


def test_a_profile_gives_keys_and_endpoint(archive, monkeypatch, tmp_path, server):
    place, _ = archive
    for name in ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    (tmp_path / "config").write_text(
        f"[profile lab]\nregion = us-east-1\nendpoint_url = http://127.0.0.1:{server.server_port}\n"
        f"aws_access_key_id = {KEY}\naws_secret_access_key = {SECRET}\n"
    )
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_PROFILE", "lab")
    assert len(open_collection(place).images) == 2
    monkeypatch.setenv("PLATELAYER_OBJECT_STORE", "obstore")
    assert open_collection(place).images[0].read((0, 0), (0,), 0, 9, 0, 9).shape == (1, 9, 9)


class Metadata(http.server.BaseHTTPRequestHandler):
    """The metadata service of an instance that has a role."""

    def log_message(self, *_):
        pass

    def do_PUT(self):
        self.tell(b"token")

    def do_GET(self):
        later = (datetime.now(UTC) + timedelta(hours=6)).strftime("%Y-%m-%dT%H:%M:%SZ")
        facts = {
            "Code": "Success",
            "AccessKeyId": KEY,
            "SecretAccessKey": SECRET,
            "Token": "t",
            "Expiration": later,
        }
        self.tell(b"lab" if self.path.endswith("credentials/") else json.dumps(facts).encode())

    def tell(self, text):
        self.send_response(200)
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)


@pytest.mark.parametrize("client", ["s3fs", "obstore"])
def test_the_role_of_an_instance_gives_access(archive, monkeypatch, client):
    place, _ = archive
    service = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Metadata)
    threading.Thread(target=service.serve_forever, daemon=True).start()
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_EC2_METADATA_DISABLED"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", f"http://127.0.0.1:{service.server_port}")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")  # another client than that of the keys
    monkeypatch.setenv("PLATELAYER_OBJECT_STORE", client)
    headers = []
    real = Proxy.forward
    monkeypatch.setattr(
        Proxy, "forward", lambda self, *a, **k: (headers.append(dict(self.headers)), real(self, *a, **k))
    )
    open_collection(place).images[0].read((0, 0), (0,), 0, 9, 0, 9)
    service.shutdown()
    tokens = {name.lower(): value for sent in headers for name, value in sent.items()}
    assert tokens["x-amz-security-token"] == "t"


def test_a_bucket_that_may_not_be_listed_is_read_all_the_same(cloud, monkeypatch):
    place, behaviour = cloud
    write_image(place, "", pixels(), ngff="0.4")

    def refuse_what_is_not_there(method, path):
        return "403" if "list-type" in path or path.endswith("zarr.json") else None

    monkeypatch.setattr(behaviour, "next_fault", refuse_what_is_not_there)
    (image,) = open_collection(place).images
    np.testing.assert_array_equal(image.read((0, 0), (0,), 0, 300, 0, 200), pixels())
    assert image.digest() == open_collection(place).images[0].digest()


def faults_of(place, behaviour, monkeypatch):
    """Every kind of permanent fault: (name, what to do, what it says, class)."""

    def with_environment(**values):
        for name, value in values.items():
            monkeypatch.setenv(name, value)

    def always(fault):
        behaviour.reset(always=fault)

    elsewhere = address(f"s3://no-such-bucket-here/{place.name}")
    return {
        "403": (lambda: always("403"), place, r"access denied \(403\); check AWS_PROFILE", AccessDenied),
        "expired": (lambda: always("expired"), place, "credentials have expired; renew them", StoreLost),
        "skew": (lambda: always("skew"), place, "clocks .* differ", StoreLost),
        "region": (lambda: always("region"), place, "another region .* set AWS_DEFAULT_REGION", StoreLost),
        "elsewhere": (lambda: always("elsewhere"), place, "another region", StoreLost),
        "bucket": (lambda: None, elsewhere, "the bucket does not exist", StoreLost),
        "missing": (lambda: None, place.child("not/here"), "no such store", BadStore),
        "endpoint": (
            lambda: with_environment(AWS_ENDPOINT_URL=f"http://user:{SECRET}@127.0.0.1:9"),
            place,
            "endpoint 127.0.0.1:9 cannot be reached",
            BadStore,
        ),
        "profile": (lambda: with_environment(AWS_PROFILE="nobody"), place, "no such profile", BadStore),
    }


@pytest.mark.parametrize("client", ["s3fs", "obstore"])
@pytest.mark.parametrize(
    "fault", ["403", "expired", "skew", "region", "elsewhere", "bucket", "missing", "endpoint", "profile"]
)
def test_permanent_faults_say_at_once_which_url_and_what_to_do(archive, monkeypatch, caplog, fault, client):
    place, behaviour = archive
    monkeypatch.setenv("PLATELAYER_OBJECT_STORE", client)
    begin, where, says, kind = faults_of(place, behaviour, monkeypatch)[fault]
    began = time.monotonic()
    begin()
    uses = [lambda: open_collection(where)]
    if fault not in ("missing",):
        uses += [
            where.list,
            lambda: where.write_bytes("x", b"1"),
            lambda: where.zarr_store() and where.children(),
        ]
    for use in uses:
        with pytest.raises(kind, match=says) as caught:
            use()
        shown = "".join(traceback.format_exception(caught.value)) + repr(caught.value) + caplog.text
        assert SECRET not in shown and KEY not in shown
        assert fault in ("endpoint", "profile") or where.url in str(caught.value)
    assert time.monotonic() - began < 20


def test_a_region_that_does_not_exist_is_said_at_once(cloud, monkeypatch):
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "mars-1")

    def nowhere(place, **_):
        raise socket.gaierror(-2, f"Name or service not known: {place[0]}")

    monkeypatch.setattr(s3.socket, "create_connection", nowhere)
    with pytest.raises(StoreLost, match=r"s3\.mars-1\.amazonaws\.com.*AWS_DEFAULT_REGION, now 'mars-1'"):
        cloud[0].list()


@pytest.mark.parametrize("client", ["s3fs", "obstore"])
def test_a_fault_while_reading_pixels_is_not_taken_for_a_damaged_chunk(archive, monkeypatch, client):
    place, behaviour = archive
    monkeypatch.setenv("PLATELAYER_OBJECT_STORE", client)
    image = open_collection(place).images[0]
    behaviour.reset(always="403")
    with pytest.raises(BadStore, match=r"A/1/0/0: access denied") as caught:
        image.read((0, 0), (0,), 0, 9, 0, 9)
    assert SECRET not in "".join(traceback.format_exception(caught.value))


def test_a_server_that_keeps_failing_is_given_up(cloud, monkeypatch):
    place, behaviour = cloud
    monkeypatch.setattr(s3, "ATTEMPTS", 2)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-west-2")  # another client
    place.write_bytes("x", b"1")
    behaviour.reset(always="500")
    with pytest.raises(BadStore, match="kept failing"):
        place.read_bytes("x")


def test_a_corrupt_chunk_in_a_bucket_is_named(cloud):
    place, _ = cloud
    image = a_plate(place).images[0]
    key = "A/1/0/0/c/0/1/1"
    place.write_bytes(key, place.read_bytes(key)[:50])
    with pytest.raises(BadStore, match=r"s3://.*A/1/0/0: chunk \(0, 1, 1\) cannot be decoded"):
        image.read((0, 0), (0,), 0, 300, 0, 200)


def test_an_unknown_object_store_client_is_refused(cloud, monkeypatch):
    place, _ = cloud
    monkeypatch.setenv("PLATELAYER_OBJECT_STORE", "boto2")
    with pytest.raises(BadArgument, match="expected s3fs or obstore, got 'boto2'"):
        place.zarr_store()


def test_an_interrupted_upload_leaves_nothing(cloud):
    place, behaviour = cloud
    a_plate(place)
    before = contents(place)
    behaviour.reset(always="403")
    with pytest.raises(BadStore):
        write_stack(place, open_or_known(place, behaviour), np.ones((1, 300, 200), int), name="n")
    behaviour.reset()
    assert contents(place) == before


def open_or_known(place, behaviour):
    behaviour.reset()
    image = open_collection(place).images[0]
    behaviour.reset(always="403")
    return image


def test_labels_replaced_in_a_bucket_leave_no_rest(cloud):
    place, _ = cloud
    image = a_plate(place).images[0]
    stack = np.zeros((2, 300, 200), np.uint32)
    stack[0, 5:9], stack[1, 7:20] = 1, 2
    write_stack(place, image, stack, name="n")
    write_stack(place, image, stack[:1], name="n", overwrite=True)
    np.testing.assert_array_equal(read_stack(place, image.path, "n"), stack[:1])
    assert place.children(f"{image.path}/labels") == ["n", "zarr.json"]
    assert place.list(".platelayer") == []
