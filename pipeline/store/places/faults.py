"""Errors of file systems and object stores as messages that a user can act on.

Invariant: a message holds the safe address and the kind of fault, never the text of the backend's own error,
which may repeat a signed URL or a header. The original is cut off (``from None``) for the same reason.
"""

import errno
from types import TracebackType

from pipeline.errors import BadStore


class AccessDenied(BadStore):
    """The store denies access; where listing is not allowed, an absent object gives the same answer."""


class StoreLost(BadStore):
    """The store as a whole cannot be reached. No image is at fault, so a run stops, and continues when restarted."""


class LeavesStore(BadStore):
    """A path in metadata leads out of its store; it is neither followed nor treated as missing."""


BACKENDS = frozenset({"aiobotocore", "aiohttp", "azure", "botocore", "fsspec", "gcsfs", "google", "obstore"})
"""Top-level modules whose exceptions are faults of a store and not of this program."""

MEANINGS = {
    "missing": "there is nothing at this address; check the spelling",
    "bucket": "the bucket does not exist at this endpoint; check its name, AWS_ENDPOINT_URL and the profile",
    "denied": "access denied (403); check AWS_PROFILE or the keys in the environment, and that they may list, "
    "read and (for an output) write there; PLATELAYER_S3_ANON=1 reads public data",
    "keys": "the credentials were rejected; check AWS_PROFILE or the keys in the environment",
    "expired": "the credentials have expired; renew them and give the same command again, finished work is kept",
    "clock": "the clocks of this machine and of the server differ too much; set the clock of this machine",
    "region": "the bucket is in another region than the requests are signed for; set AWS_DEFAULT_REGION to its own",
    "endpoint": "the endpoint cannot be reached; check AWS_ENDPOINT_URL, AWS_DEFAULT_REGION and the network",
    "busy": "the server kept failing (500, 503 or a timeout) after all retries; give the same command again later",
    "no credentials": "no credentials found; set AWS_PROFILE or the keys in the environment, "
    "or PLATELAYER_S3_ANON=1 for public data",
    "read-only": "this place is read-only; choose another --output",
    "full": "no space left; free some and give the same command again, finished work is kept",
    "not permitted": "permission denied; check the owner and mode, or choose another --output",
}

LOST = frozenset({"bucket", "keys", "expired", "clock", "region", "endpoint", "no credentials"})
"""Kinds of faults that concern a store as a whole."""

_CODES = {
    "missing": {"NoSuchKey", "NotFound", "404"},
    "bucket": {"NoSuchBucket", "InvalidBucketName"},
    "denied": {"AccessDenied", "Forbidden", "403", "401", "AllAccessDisabled", "UnauthorizedAccess"},
    "keys": {"InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken", "InvalidSecurity"},
    "expired": {"ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired", "RequestExpired"},
    "clock": {"RequestTimeTooSkewed"},
    "region": {
        "PermanentRedirect",
        "301",
        "AuthorizationHeaderMalformed",
        "IllegalLocationConstraintException",
        "TemporaryRedirect",
    },
    "busy": {"SlowDown", "ServiceUnavailable", "InternalError", "RequestTimeout", "500", "502", "503", "504"},
}

_CLASSES = {
    "endpoint": {"EndpointConnectionError", "ClientConnectorError", "ClientConnectorDNSError", "gaierror"},
    "no credentials": {"NoCredentialsError", "PartialCredentialsError", "ProfileNotFound"},
    "expired": {"TokenRetrievalError", "UnauthorizedSSOTokenError", "CredentialRetrievalError"},
    "busy": {
        "ConnectTimeoutError",
        "ReadTimeoutError",
        "ConnectionClosedError",
        "ClientPayloadError",
        "FSTimeoutError",
        "ServerDisconnectedError",
        "GenericError",
    },
    "denied": {"PermissionDeniedError", "UnauthenticatedError"},
}

_ERRNOS = {
    errno.EROFS: "read-only",
    errno.ENOSPC: "full",
    errno.EDQUOT: "full",
    errno.EACCES: "not permitted",
    errno.EPERM: "not permitted",
    errno.EBUSY: "busy",
    errno.EREMOTEIO: "busy",
}


class explained:
    """Turn any fault of a backend inside the block into a `BadStore` that names ``url`` and what to do.

    A class and no generator, because it is entered for each of the ten thousand small files of a plate.
    """

    def __init__(self, url: str) -> None:
        self.url = url

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None and is_backend_fault(error):
            raise store_fault(error, self.url) from None


def store_fault(error: BaseException, url: str) -> BadStore:
    """Return the `BadStore` for a fault of a backend: it names ``url``, the kind of fault and what to do."""
    return _class_of(kind_of(error))(f"{url}: {meaning(error, url)}")


def _class_of(kind: str | None) -> type[BadStore]:
    if kind in LOST:
        return StoreLost
    return AccessDenied if kind == "denied" else BadStore


def is_backend_fault(error: BaseException) -> bool:
    """Whether an exception comes from a store (disk, network, server) and not from our own code."""
    return isinstance(error, OSError) or type(error).__module__.partition(".")[0] in BACKENDS


def meaning(error: BaseException, url: str = "") -> str:
    """Say what a backend's error means and what to do, without quoting it."""
    kind = kind_of(error)
    if kind == "denied" and url.startswith("http"):
        return "access denied (401 or 403); only public data are read over https"
    if kind:
        return MEANINGS[kind]
    code = _code(error)
    return f"the store failed with {type(error).__name__}" + (f" ({code})" if code else "")


def kind_of(error: BaseException) -> str | None:
    """Name the kind of fault (a key of `MEANINGS`); None when it is unknown."""
    code = _code(error)
    by_code = next((kind for kind, codes in _CODES.items() if code in codes), None)
    names = {cls.__name__ for cls in type(error).__mro__}
    by_class = next((kind for kind, classes in _CLASSES.items() if names & classes), None)
    return by_code or by_class or _by_builtin(error, remote=bool(code))


def _by_builtin(error: BaseException, *, remote: bool) -> str | None:
    if isinstance(error, FileNotFoundError):
        return "missing"
    if isinstance(error, PermissionError) and (remote or error.errno is None):
        return "denied"
    if isinstance(error, TimeoutError | ConnectionError):
        return "busy"
    return _ERRNOS.get(error.errno or 0) if isinstance(error, OSError) else None


def _code(error: BaseException) -> str | None:
    """Find the server's error code in an exception or in what it was raised from."""
    for candidate in (error, error.__cause__):
        response = getattr(candidate, "response", None)
        if isinstance(response, dict) and response.get("Error", {}).get("Code"):
            return str(response["Error"]["Code"])
        status = getattr(candidate, "status", None)
        if isinstance(status, int):
            return str(status)
    return None
