"""An S3 server for all who test against object storage."""

import pytest
from s3_on_loopback import BUCKET, environment, s3_on_loopback

from pipeline.store.places.address import address


@pytest.fixture(scope="session")
def server():
    with s3_on_loopback() as proxy:
        yield proxy


@pytest.fixture
def cloud(server, monkeypatch, tmp_path):
    """The environment of a user of that server; a fresh prefix in the bucket, and how the server behaves."""
    for name, value in environment(server).items():
        monkeypatch.setenv(name, value)
    for name in ("AWS_PROFILE", "PLATELAYER_S3_ANON", "PLATELAYER_OBJECT_STORE", "HTTP_PROXY", "http_proxy"):
        monkeypatch.delenv(name, raising=False)
    server.behaviour.reset()
    return address(f"s3://{BUCKET}/{tmp_path.name}/p.zarr"), server.behaviour
