"""Stores behind a plain web server: read, also when it fails now and then; never written."""

import http.server
import socketserver
import threading
from functools import partial

import numpy as np
import pytest

from pipeline.errors import BadStore
from pipeline.store.ome.collection import open_collection
from pipeline.store.ome.image_writing import create_plate, write_image
from pipeline.store.places import retrying as patience
from pipeline.store.places.address import address


class Web(http.server.SimpleHTTPRequestHandler):
    """A web server that fails the first request for each chunk, and refuses what is below ``private``."""

    seen: set = set()  # noqa: RUF012

    def log_message(self, *_):
        pass

    def do_GET(self):
        if "private" in self.path:
            self.send_error(403)
        elif "/0/c/" in self.path and self.path not in self.seen:
            self.seen.add(self.path)
            self.send_error(503)
        else:
            super().do_GET()


class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = True


@pytest.fixture(scope="module")
def web(tmp_path_factory):
    folder = tmp_path_factory.mktemp("web")
    Web.seen = set()
    server = Server(("127.0.0.1", 0), partial(Web, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield folder, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


@pytest.mark.parametrize(("ngff", "shards"), [("0.4", None), ("0.5", None), ("0.5", (128, 128))])
def test_a_plate_is_read_over_http(web, ngff, shards):
    folder, url = web
    name = f"{ngff}{bool(shards)}.zarr"
    pixels = np.random.default_rng(0).integers(0, 4000, (1, 200, 300)).astype("u2")
    local = address(folder / name)
    for path in create_plate(local, name="p", wells=[("A", "1", 1)], ngff=ngff):
        write_image(local, path, pixels, ngff=ngff, chunks=(64, 64), shards=shards)
    collection = open_collection(address(f"{url}/{name}"))
    (image,) = collection.images
    np.testing.assert_array_equal(image.read((0, 0), (0,), 3, 150, 5, 299), pixels[:, 3:150, 5:299])
    assert image.digest() == open_collection(address(f"{url}/{name}")).images[0].digest()


@pytest.mark.parametrize("use", ["write_bytes", "write_new"])
def test_a_web_server_is_never_written(web, use):
    place = address(f"{web[1]}/new.zarr")
    assert not place.is_writable_kind
    with pytest.raises(BadStore, match="read-only; give --output a path or s3://"):
        getattr(place, use)("x", b"1")
    with pytest.raises(BadStore, match="read-only"):
        place.remove("x")


def test_what_is_not_there_or_not_allowed_is_said(web, monkeypatch):
    monkeypatch.setattr(patience, "ATTEMPTS", 2)
    with pytest.raises(BadStore, match="no such store"):
        open_collection(address(f"{web[1]}/nothing.zarr"))
    with pytest.raises(BadStore, match="only public data are read over https"):
        open_collection(address(f"{web[1]}/private.zarr"))
    with pytest.raises(BadStore, match=r"endpoint cannot be reached|kept failing"):
        open_collection(address("http://127.0.0.1:9/x.zarr"))
