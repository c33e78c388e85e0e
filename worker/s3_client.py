"""The one way to make a client of S3, or of a store that speaks like it."""

from typing import Any

import boto3
import botocore.exceptions
from botocore.config import Config

from worker.settings import S3Settings, SettingsError


def make_s3_client(
    settings: S3Settings, *, connect_seconds: float, read_seconds: float, attempts: int, max_connections: int = 10
) -> Any:
    """A client, safe to use from as many threads as it has connections.

    Credentials come by boto3's own chain: AWS_* variables, a web identity (AWS_WEB_IDENTITY_TOKEN_FILE, as for a pod's
    service account), the profile, also one of single sign-on, the machine's role. Those that expire are renewed.

    `read_seconds` is how long the store may be silent. Of `attempts`, those after the first are botocore's own, with
    jitter, for what may help to try again. Raises SettingsError where the settings, or the AWS_* variables and files
    that botocore reads, make no client.
    """
    try:
        return boto3.session.Session(profile_name=settings.profile).client(
            "s3",
            verify=str(settings.ca_file) if settings.ca_file else None,
            endpoint_url=settings.endpoint_url,
            region_name=settings.region,
            config=Config(
                signature_version="s3v4",
                s3={"addressing_style": settings.addressing_style},
                connect_timeout=connect_seconds,
                read_timeout=read_seconds,
                retries={"mode": "standard", "total_max_attempts": attempts},
                max_pool_connections=max_connections,
                tcp_keepalive=True,
                response_checksum_validation="when_required",  # who reads tells broken bytes: by decoding, by digests
            ),
        )
    except (ValueError, botocore.exceptions.BotoCoreError) as error:
        message = f"no client of S3 can be made (s3.* of the settings, AWS_* variables and files): {error}"
        raise SettingsError(message) from error
