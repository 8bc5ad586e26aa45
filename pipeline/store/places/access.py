"""Configuration of access and kinds of addresses; importing it needs no client of a server."""

import hashlib
import os

ACCESS = (
    *(
        "AWS_PROFILE",
        "AWS_DEFAULT_PROFILE",
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
    ),
    *("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_REGION", "AWS_DEFAULT_REGION"),
    *("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE", "GOOGLE_APPLICATION_CREDENTIALS"),
    *("PLATELAYER_S3_ANON", "PLATELAYER_OBJECT_STORE"),
)
"""Environment variables that configure access to a store."""

READ_ONLY = frozenset({"http", "https"})
"""Schemes that cannot be written."""

DOCUMENTS = frozenset({"zarr.json", ".zgroup", ".zattrs", ".zarray", ".zmetadata"})
"""Zarr metadata; copied last and removed first, so that a half-copied array is not visible."""


def mark_of_environment(url: str = "s3://") -> str:
    """Digest of the environment variables that determine access to a URL, so that caches notice a change."""
    if "://" not in url:
        return ""
    values = [os.environ.get(name) for name in ACCESS]
    return hashlib.sha256(repr(values).encode()).hexdigest()
