"""Access to S3: read from the environment and the profiles of this process, never from an address or a job.

``AWS_PROFILE``, keys, region, ``AWS_ENDPOINT_URL``, instance roles: whatever botocore finds.
``PLATELAYER_S3_ANON=1`` reads public data without signing, which is also what happens when no credentials are
found. ``PLATELAYER_OBJECT_STORE=obstore`` moves Zarr chunks by obstore, where that is installed.
"""

import os
import socket
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

from pipeline.errors import BadArgument
from pipeline.store.places.faults import StoreLost
from pipeline.store.places.traffic import count_received, count_request, kind_of_request

ATTEMPTS = 10
"""Attempts per request, with backoff and jitter between them."""

FIRST_ATTEMPT = b"attempt=1"
"""Value of the header of a first attempt."""

CONNECT_S, READ_S = 10, 60
"""Timeouts of one request."""

CONNECTIONS = 64
"""Open connections per process."""

ASK_AGAIN = timedelta(minutes=15)
"""Lifetime of credentials as given to obstore (it renews them five minutes earlier); shorter than that of roles."""


def s3fs_options() -> dict[str, Any]:
    """Options of the s3fs file system; keys, profile, region and endpoint are found by botocore itself."""
    check_endpoint()
    config = {
        "http_session_cls": _counting_session(),
        # "adaptive" slows all requests down after a few 503s: 3 times slower with 10 % of requests failing.
        "retries": {"mode": "standard", "max_attempts": ATTEMPTS},
        "connect_timeout": CONNECT_S,
        "read_timeout": READ_S,
        "max_pool_connections": CONNECTIONS,
    }
    # One part at a time: otherwise s3fs asks for the size (HEAD) before every GET.
    return {"anon": is_anonymous(), "config_kwargs": config, "max_concurrency": 1}


@lru_cache(maxsize=1)
def _counting_session() -> type:
    """The HTTP session of aiobotocore with a counter of requests; imported only where S3 is used."""
    from aiobotocore.httpsession import AIOHTTPSession

    class CountingSession(AIOHTTPSession):
        """Counts every attempt of every request, the client's own retries too."""

        async def send(self, request: Any) -> Any:
            """Send and count a request; the length of the response is taken from its header."""
            attempt = request.headers.get("amz-sdk-request", FIRST_ATTEMPT).partition(b";")[0]
            count_request(
                kind_of_request(request.method, request.url, request.headers),
                size=int(request.headers.get("Content-Length") or 0),
                again=attempt != FIRST_ATTEMPT,
            )
            answer = await super().send(request)
            if request.method != "HEAD":
                count_received(int(answer.headers.get("content-length") or 0))
            return answer

    return CountingSession


def is_anonymous() -> bool:
    """Whether S3 is read without signing: asked for by PLATELAYER_S3_ANON=1, or no credentials are found."""
    asked = os.environ.get("PLATELAYER_S3_ANON")
    if asked is not None:
        return asked.strip().lower() not in {"", "0", "false", "no"}
    return _session().get_credentials() is None


def wants_obstore() -> bool:
    """Whether the user chose obstore for Zarr chunks."""
    chosen = os.environ.get("PLATELAYER_OBJECT_STORE", "s3fs")
    if chosen not in {"s3fs", "obstore"}:
        raise BadArgument(f"PLATELAYER_OBJECT_STORE: expected s3fs or obstore, got {chosen!r}")
    return chosen == "obstore"


def obstore_zarr(bucket: str, prefix: str, *, read_only: bool) -> Any:
    """Make a zarr store on obstore with the same access as s3fs has."""
    try:
        from obstore.store import S3Store
    except ImportError:
        raise BadArgument(
            "PLATELAYER_OBJECT_STORE=obstore: the package is not installed; pip install obstore"
        ) from None
    from zarr.storage import ObjectStore

    check_endpoint()
    anonymous = is_anonymous()
    credentials: Any = None if anonymous else _credentials
    url = _botocore_client().meta.endpoint_url
    store = S3Store(
        bucket,
        prefix=prefix or None,
        endpoint=url,
        region=_session().get_config_variable("region") or "us-east-1",
        skip_signature=anonymous,
        virtual_hosted_style_request=False,
        client_options={
            "allow_http": url.startswith("http://"),
            "timeout": timedelta(seconds=READ_S),
            "connect_timeout": timedelta(seconds=CONNECT_S),
        },
        retry_config={"max_retries": 0},  # `RetryingStore` retries and counts.
        credential_provider=credentials,
    )
    return ObjectStore(store, read_only=read_only)


def _credentials() -> dict[str, Any]:
    """Credentials for obstore, requested again after `ASK_AGAIN`, because botocore renews those of a role."""
    credentials = _session().get_credentials().get_frozen_credentials()
    return {
        "access_key_id": credentials.access_key,
        "secret_access_key": credentials.secret_key,
        "token": credentials.token,
        "expires_at": datetime.now(UTC) + ASK_AGAIN,
    }


def _session() -> Any:
    import botocore.session
    from botocore.exceptions import ProfileNotFound

    session = botocore.session.Session()
    try:
        session.get_scoped_config()
    except ProfileNotFound:
        name = os.environ.get("AWS_PROFILE")
        raise StoreLost(f"AWS_PROFILE={name!r}: there is no such profile; see ~/.aws/config") from None
    return session


def _botocore_client() -> Any:
    from botocore import UNSIGNED
    from botocore.config import Config

    session = _session()
    config = Config(signature_version=UNSIGNED)
    region = session.get_config_variable("region") or "us-east-1"
    return session.create_client("s3", region_name=region, config=config)


def check_endpoint() -> None:
    """Raise at once when the endpoint cannot be reached, because the client's own retries take minutes."""
    named = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    url = named or _session().get_scoped_config().get("endpoint_url")
    proxies = ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy")
    if any(os.environ.get(name) for name in proxies):
        return
    if not url:
        region = _session().get_config_variable("region") or "us-east-1"
        url, advice = _botocore_client().meta.endpoint_url, f"the region (AWS_DEFAULT_REGION, now {region!r})"
    else:
        advice = "AWS_ENDPOINT_URL, the profile"
    parts = urlsplit(url if "://" in url else f"https://{url}")
    place = (parts.hostname or "", parts.port or (80 if parts.scheme == "http" else 443))
    for last in (False, True):
        try:
            socket.create_connection(place, timeout=5).close()
            return
        except OSError as error:
            if last:
                raise StoreLost(
                    f"the S3 endpoint {place[0]}:{place[1]} cannot be reached ({type(error).__name__}); "
                    f"check {advice} and the network"
                ) from None
