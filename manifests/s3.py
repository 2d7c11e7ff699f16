"""The one way to a bucket: all that decides who we are and where it is comes from the environment."""

import os
from urllib.parse import urlsplit

from pyarrow import fs

TIMEOUT_S = 30.0
"""Silence after which a connection counts as lost."""


def connect_s3(bucket: str, *, tries: int) -> fs.S3FileSystem:
    """Open S3, or a service that speaks it.

    Credentials are found as Amazon's tools find them: `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY`, or the profile that
    `AWS_PROFILE` names, or the role of the node. `AWS_ENDPOINT_URL` (or `AWS_ENDPOINT_URL_S3`) names another service than
    Amazon's; the region is `AWS_REGION` (or `AWS_DEFAULT_REGION`), or where the bucket is.

    Args:
        bucket: that will be read or written.
        tries: of each request, before its failure is told.

    Raises:
        OSError: neither an endpoint nor a region is named, and the bucket cannot be found.
    """
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    if not (endpoint or region):
        region = fs.resolve_s3_region(bucket)
    return fs.S3FileSystem(
        region=region,
        endpoint_override=urlsplit(endpoint).netloc or None,
        scheme=urlsplit(endpoint).scheme or "https",
        connect_timeout=TIMEOUT_S,
        request_timeout=TIMEOUT_S,
        allow_delayed_open=True,  # a small file in one request
        retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=tries),
    )
