# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The connection to an object store, and what its answers mean."""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from ...errors import MissingLibrary, StoreError
from .. import manifest
from ..options import S3Connection

#: The first boto3 that sends checksums of ours.
OLDEST = "1.21"

TODO = {
    "NoSuchBucket": "Create the bucket, or correct s3.bucket.",
    "AccessDenied": (
        "Check the permissions of the key: it must list, read and write under this prefix."
    ),
    "InvalidAccessKeyId": "Check s3.access_key.",
    "SignatureDoesNotMatch": "Check s3.secret_key.",
    "ExpiredToken": "Get new credentials and run it again.",
    "RequestTimeTooSkewed": "Set this host's clock, then run it again.",
    "NoCredentialsError": (
        "Give s3.access_key and s3.secret_key, or set up the node's own credentials."
    ),
    "EndpointConnectionError": "Check s3.endpoint_url and the network.",
}


@contextlib.contextmanager
def asking(what: str, url: str) -> Iterator[None]:
    """Turn what boto3 raises into a StoreError that names the object."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except ClientError as error:
        code = str(error.response.get("Error", {}).get("Code", ""))
        text = str(error.response.get("Error", {}).get("Message", "")) or code
        raise StoreError(
            f"{what} {url} failed: {code}: {text.rstrip('.')}.", TODO.get(code, ""), url
        ) from error
    except BotoCoreError as error:
        raise StoreError(
            f"{what} {url} failed: {str(error).rstrip('.')}.",
            TODO.get(type(error).__name__, ""),
            url,
        ) from error


def error_code(error: Any) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def http_status(error: Any) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def base64_text(digest: bytes) -> str:
    return base64.b64encode(digest).decode("ascii")


def connect(options: S3Connection, url: str) -> Any:
    """Return boto3's client.

    :param url: the place, for messages.
    :raises MissingLibrary: boto3 is not installed or too old.
    :raises StoreError: a setting can't be used.
    """
    try:
        import boto3
        from botocore.config import Config
    except ImportError as error:
        raise MissingLibrary("boto3", "to store copies in S3", str(error)) from error
    settings: dict[str, Any] = {
        "retries": {"max_attempts": 5, "mode": "standard"},
        "connect_timeout": 10,
        "read_timeout": 60,
        "max_pool_connections": options.parallel + 1,
        "user_agent_extra": f"mlops.fleet/{manifest.VERSION}",
    }
    # Every request that sends data has a signed header with the SHA-256 of it: hashing it again for
    # the signature would prove nothing more.
    settings["s3"] = {"payload_signing_enabled": False}
    if options.endpoint_url:
        settings["s3"]["addressing_style"] = "path"
    try:
        # We send checksums of our own; newer releases would add theirs, which some servers refuse.
        config = Config(
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            **settings,
        )
    except TypeError:
        config = Config(**settings)
    with asking("Connecting to", url):
        try:
            client = boto3.session.Session().client(
                "s3",
                region_name=options.region or ("us-east-1" if options.endpoint_url else None),
                endpoint_url=options.endpoint_url,
                aws_access_key_id=options.access_key,
                aws_secret_access_key=options.secret_key,
                aws_session_token=options.session_token,
                verify=options.ca_bundle,
                config=config,
            )
        except ValueError as error:
            raise StoreError(
                f"Connecting to {url} failed: {error}.", "Check s3.endpoint_url and s3.region.", url
            ) from error
    upload = client.meta.service_model.operation_model("UploadPart").input_shape.members
    if "ChecksumSHA256" not in upload:
        raise MissingLibrary(
            "boto3",
            f"to store copies in S3, in version {OLDEST} or later ({boto3.__version__} is there)",
        )
    return client


def is_amazon(client: Any) -> bool:
    """Say whether the client talks to Amazon, whose servers are known to refuse wrong checksums.

    The address that counts is the client's: the environment and the library's own configuration can
    name another one, too.
    """
    host = urlsplit(client.meta.endpoint_url).hostname or ""
    return host.endswith((".amazonaws.com", ".amazonaws.com.cn"))
