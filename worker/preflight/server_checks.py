"""Checks Redis and S3, and compares their clocks with this machine's."""

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

import boto3
import botocore.exceptions
import redis

from worker.cache.client import connect
from worker.preflight.finding import CheckStatus, Finding
from worker.s3_client import make_s3_client
from worker.settings import RedisSettings, Settings, SettingsError

MOST_CLOCK_SECONDS = 5.0
_KEY = "sluice:permission-check"
_CREDENTIALS_REFUSED = {
    "InvalidAccessKeyId": "the store does not know the access key",
    "SignatureDoesNotMatch": "the secret key is wrong",
    "ExpiredToken": "the session token has expired",
    "InvalidToken": "the session token is not valid",
    "RequestTimeTooSkewed": "this machine's clock differs too much from the store's",
}


def check_redis(settings: RedisSettings, *, clock: Callable[[], float] = time.time) -> Iterator[Finding]:
    """Checks that Redis answers and stores entries, and compares its clock with this machine's. Never raises."""
    try:
        client = connect(settings)
    except SettingsError as error:
        yield Finding("Redis", CheckStatus.WRONG, str(error), "correct redis.url")
        return
    advice = "check redis.url; without it every image is scored again"
    try:
        client.ping()
        yield Finding("Redis", CheckStatus.OK, "connected")
        client.set(_KEY, b"1", ex=10)
        if client.get(_KEY) is None:
            yield Finding("Redis cache", CheckStatus.WRONG, "a new entry was evicted at once", "give Redis more memory")
        else:
            yield Finding("Redis cache", CheckStatus.OK, "an entry was stored and read back")
        seconds, microseconds = client.time()
        yield _clock_finding("Redis", seconds + microseconds / 1e6, clock())
    except redis.AuthenticationError as error:
        yield Finding("Redis", CheckStatus.WRONG, f"refuses the user or its password ({error})", advice)
    except redis.exceptions.NoPermissionError as error:
        permit = "allow the user: ACL SETUSER NAME ~sluice:* +@read +@write +@scripting +@connection +time"
        yield Finding("Redis", CheckStatus.WRONG, f"no permission ({error})", permit)
    except redis.ConnectionError as error:
        yield Finding("Redis", CheckStatus.WRONG, f"does not answer ({error})", advice, lasting=False)
    except redis.RedisError as error:
        yield Finding("Redis", CheckStatus.WRONG, f"cannot be used ({error})", advice)
    finally:
        client.close()


def check_s3(settings: Settings, *, clock: Callable[[], float] = time.time) -> Iterator[Finding]:
    """Checks the credentials, and the buckets that the settings name. Never raises.

    S3 counts as unused without `s3.endpoint_url`, credentials and `s3://` addresses in the settings.
    """
    buckets = sorted(_buckets(settings))
    try:
        client = make_s3_client(settings.s3, connect_seconds=3, read_seconds=5, attempts=1)
    except SettingsError as error:
        yield Finding("S3", CheckStatus.WRONG, str(error))
        return
    try:
        without = boto3.session.Session(profile_name=settings.s3.profile).get_credentials() is None
        if without and settings.s3.endpoint_url is None and not buckets:
            yield Finding("S3", CheckStatus.UNKNOWN, "no credentials: images in S3 cannot be fetched")
            return
        # The buckets of events are not known in advance. Valid credentials can always ask for a list of buckets.
        for bucket in buckets:
            yield from _check_bucket(client, bucket, clock)
        if not buckets:
            yield from _check_bucket(client, None, clock)
    finally:
        client.close()


def _check_bucket(client: Any, bucket: str | None, clock: Callable[[], float]) -> Iterator[Finding]:
    check = f"S3 bucket {bucket}" if bucket else "S3"
    try:
        answer = client.head_bucket(Bucket=bucket) if bucket else client.list_buckets()
        detail = "may be read" if bucket else "the credentials work"
        headers = answer["ResponseMetadata"]["HTTPHeaders"]
    except botocore.exceptions.NoCredentialsError:
        advice = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE, or give the machine or pod a role"
        yield Finding(check, CheckStatus.WRONG, "no credentials", advice)
        return
    except botocore.exceptions.ClientError as error:
        code = str(error.response.get("Error", {}).get("Code", ""))
        headers = error.response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
        refused = _CREDENTIALS_REFUSED.get(code)
        if refused:
            yield Finding(check, CheckStatus.WRONG, f"{refused} ({code})", "check the AWS_* variables, profile or role")
        elif code == "404":
            yield Finding(check, CheckStatus.WRONG, "does not exist", "create it, or correct the settings that name it")
        elif bucket is None and code in ("AccessDenied", "403"):
            detail = (
                "the credentials are valid but may not list buckets; whether they may read is known with the "
                "first image"
            )
            yield Finding(check, CheckStatus.OK, detail)
        else:
            yield Finding(check, CheckStatus.WRONG, f"refused: {error}", "allow s3:GetObject and s3:ListBucket on it")
    except botocore.exceptions.BotoCoreError as error:
        yield Finding(check, CheckStatus.WRONG, f"does not answer ({error})", "check s3.endpoint_url", lasting=False)
        return
    else:
        yield Finding(check, CheckStatus.OK, detail)
    if date := headers.get("date"):
        yield _clock_finding("S3", parsedate_to_datetime(date).timestamp(), clock())


def _buckets(settings: Settings) -> set[str]:
    places = (settings.policy, *settings.shadow_policies.values(), settings.engine.repository, settings.model)
    return {urlsplit(str(place)).netloc for place in places if str(place).startswith("s3://")}


def _clock_finding(server: str, theirs: float, ours: float) -> Finding:
    check = f"clock of {server}"
    ahead = theirs - ours
    if abs(ahead) <= MOST_CLOCK_SECONDS:
        return Finding(check, CheckStatus.OK, f"within {MOST_CLOCK_SECONDS:g} s of this machine's clock")
    shown = datetime.fromtimestamp(theirs, UTC).isoformat(timespec="seconds")
    detail = f"{abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} this machine's (it shows {shown})"
    return Finding(check, CheckStatus.WRONG, detail, "synchronize both clocks with NTP")
