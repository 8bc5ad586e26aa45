"""Who holds an output, when several want it at the same instant: on a disk and in object storage."""

import json
import logging
import threading
import time

import botocore.session
import pytest
from moto.server import ThreadedMotoServer

from pipeline.errors import RunConflict
from pipeline.store import ledger
from pipeline.store.ledger import LOCK, held
from pipeline.store.places.address import Address, address

ACCESS = {
    "AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true", "AWS_CONFIG_FILE": "/no/such", "AWS_SHARED_CREDENTIALS_FILE": "/no/such",
}  # fmt: skip


@pytest.fixture(scope="module")
def bucket():
    """An empty bucket of a server on loopback, and its endpoint."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    endpoint = "http://{}:{}".format(*server.get_host_and_port())
    session = botocore.session.Session()
    session.set_credentials("key", "secret")
    session.create_client("s3", region_name="us-east-1", endpoint_url=endpoint).create_bucket(Bucket="locks")
    yield endpoint
    server.stop()


@pytest.fixture(params=["disk", "s3"])
def place(request, tmp_path, monkeypatch):
    if request.param == "disk":
        return address(tmp_path / "out.zarr")
    for name, value in ACCESS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", request.getfixturevalue("bucket"))
    return address(f"s3://locks/{tmp_path.name}/out.zarr")


def left_by_a_dead_run(place):
    with held(place, "dead"):
        card = json.loads(place.read_bytes(LOCK))
    place.write_bytes(LOCK, json.dumps(card | {"pid": 2**22 + 1}).encode())


def all_at_once(monkeypatch, count):
    """Nobody acts upon the death of a holder before all have seen it."""
    barrier, seen, judged = threading.Barrier(count), threading.local(), ledger._is_dead

    def is_dead(holder, stale_s):
        answer = judged(holder, stale_s)
        if not hasattr(seen, "once"):
            seen.once = True
            barrier.wait(60)
        return answer

    monkeypatch.setattr(ledger, "_is_dead", is_dead)


def race(place, count):
    """How each of several runs that start at once fared; winners hold until all have tried."""
    fates, tried = [], threading.Barrier(count + 1)

    def start(number):
        try:
            with held(place, f"run{number}"):
                fates.append("held")
                tried.wait(60)
        except RunConflict as error:
            fates.append(str(error))
            tried.wait(60)

    threads = [threading.Thread(target=start, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    tried.wait(60)
    for thread in threads:
        thread.join()
    return fates


@pytest.mark.parametrize("count", [2, 6])
def test_of_those_that_take_over_at_the_same_instant_one_wins(place, monkeypatch, count):
    left_by_a_dead_run(place)
    all_at_once(monkeypatch, count)
    fates = race(place, count)
    assert fates.count("held") == 1, fates
    assert sum("is writing to it" in fate for fate in fates) == count - 1
    assert place.list() == []


def test_one_that_judged_late_does_not_undo_a_takeover_that_was_released_or_followed(place, monkeypatch):
    left_by_a_dead_run(place)
    chain_before = ledger._chain(place)
    with held(place, "second") as second:
        token = second.token
    with held(place, "third") as third:
        looks = iter([chain_before])
        chain = ledger._chain
        monkeypatch.setattr(ledger, "_chain", lambda output: next(looks, None) or chain(output))
        with pytest.raises(RunConflict, match="run third"), held(place, "late"):
            pass
        monkeypatch.setattr(ledger, "_chain", chain)
        assert [card["token"] for card in chain(place)] == [third.token] != [token]


def test_a_server_that_refuses_its_own_repeated_request_does_not_lock_out_its_maker(place, monkeypatch):
    once = Address.write_new
    monkeypatch.setattr(Address, "write_new", lambda self, *words: once(self, *words) and once(self, *words))
    with held(place, "run") as hold:
        assert ledger._chain(place)[-1]["token"] == hold.token


def test_a_holder_that_was_silent_neither_speaks_nor_releases_for_its_successor(place, monkeypatch):
    monkeypatch.setattr(ledger, "BEAT_S", 0.3)
    with held(place, "silent") as silent:
        card = json.loads(place.read_bytes(LOCK))
        monkeypatch.setattr(ledger, "_is_dead", lambda holder, stale_s: holder["token"] == silent.token)
        with held(place, "next") as successor:
            assert silent.lost.wait(30)
            with pytest.raises(RunConflict, match="took this output over"):
                silent.check()
            time.sleep(0.5)
            successor.check()
            assert ledger._chain(place)[-1]["run"] == "next"
            assert json.loads(place.read_bytes(LOCK))["token"] == card["token"]
    assert place.list() == []
