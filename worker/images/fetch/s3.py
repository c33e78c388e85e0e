"""Images in S3 and stores that speak like it."""

import time
from typing import Any

import botocore.exceptions
import urllib3.exceptions

from schemas import FailureReason, S3Reference
from worker.images.errors import ImageError, StoreRefusedError, TransientFetchError
from worker.images.fetch.base import FetchedImage, ImageBody, bare_etag, check_etag
from worker.images.fetch.pace import BodyPace
from worker.images.memory import MemoryBudget
from worker.s3_client import make_s3_client
from worker.settings import S3Settings

_CHUNK_BYTES = 256 * 1024

_NOT_FOUND = {"NoSuchKey", "NoSuchVersion", "NoSuchBucket", "NotFound", "404", "405", "MethodNotAllowed"}
_DENIED = {
    "AccessDenied",
    "AccountProblem",
    "AllAccessDisabled",
    "InvalidObjectState",
    "InvalidPayer",
    "403",
    "Forbidden",
    # the key that the object is encrypted with
    "KMS.AccessDeniedException",
    "KMS.DisabledException",
    "KMS.InvalidStateException",
    "KMS.KMSInvalidStateException",
    "KMS.NotFoundException",
}
_CREDENTIALS = {
    "AuthFailure",
    "ExpiredToken",
    "ExpiredTokenException",
    "InvalidAccessKeyId",
    "InvalidClientTokenId",
    "InvalidSecurity",
    "InvalidToken",
    "NotSignedUp",
    "RequestExpired",
    "RequestTimeTooSkewed",
    "SignatureDoesNotMatch",
    "TokenRefreshRequired",
    "UnauthorizedAccess",
    "UnrecognizedClientException",
}
_CHANGED = {"PreconditionFailed", "412"}
_REFUSED = {
    "InvalidArgument",
    "InvalidBucketName",
    "InvalidRequest",
    "InvalidURI",
    "KeyTooLongError",
    "400",
    "BadRequest",
}


class S3Fetcher:
    """Reads objects with GetObject, by version where the reference names one.

    An ETag in the reference is a condition: an object that has changed since is refused, not judged in place of the
    other. Botocore does not try again by itself, since the intake does, with one patience for everything. Faults of the
    credentials are transient: they are this worker's, not the image's.
    """

    def __init__(
        self,
        settings: S3Settings,
        *,
        max_bytes: int,
        memory: MemoryBudget | None = None,
        timeout_seconds: float,
        max_connections: int,
        min_bytes_per_second: float = 1.0,
    ) -> None:
        self._max_bytes = max_bytes
        self._memory = memory or MemoryBudget(max_bytes)
        self._timeout_seconds = timeout_seconds
        self._min_rate = min_bytes_per_second
        half = timeout_seconds / 2
        self._client = make_s3_client(
            settings, connect_seconds=half, read_seconds=half, attempts=1, max_connections=max_connections
        )

    def fetch(self, reference: S3Reference) -> FetchedImage:
        place = f"s3://{reference.bucket}/{reference.key}"
        _check_text(reference, place)
        ends_at = time.monotonic() + self._timeout_seconds
        try:
            answer = self._client.get_object(**_request(reference))
            with answer["Body"] as stream:
                check_etag(reference.etag, answer.get("ETag"), place)
                size = answer.get("ContentLength")
                with ImageBody(self._memory, self._max_bytes, place, size) as body:
                    self._read(stream, body, ends_at, place)
                    if size is not None and size != len(body):
                        raise TransientFetchError(f"{place} broke off after {len(body)} of {size} bytes")
                    return body.image(bare_etag(answer.get("ETag")), answer.get("VersionId"))
        except botocore.exceptions.ClientError as error:
            raise _refusal(error, place) from error
        except (botocore.exceptions.ParamValidationError, botocore.exceptions.EndpointProviderError) as error:
            raise ImageError(FailureReason.REFERENCE_REFUSED, f"{place} cannot be asked for: {error}") from error
        except (botocore.exceptions.NoCredentialsError, botocore.exceptions.CredentialRetrievalError) as error:
            raise StoreRefusedError(f"{place}: {error}") from error
        except (botocore.exceptions.BotoCoreError, urllib3.exceptions.HTTPError, OSError) as error:
            raise TransientFetchError(f"{place}: {error}") from error

    def close(self) -> None:
        self._client.close()

    def _read(self, stream: Any, body: ImageBody, ends_at: float, place: str) -> None:
        """The body as it arrives: `read1` returns what is there, so a store that drips is seen to be slow."""
        pace = BodyPace(place, self._min_rate)
        while chunk := stream.read1(_CHUNK_BYTES):
            body.add(chunk)
            pace.check(len(body), body.waited_seconds)
            if time.monotonic() > ends_at + body.waited_seconds:
                raise TransientFetchError(f"{place} took more than {self._timeout_seconds:g} seconds")


def _check_text(reference: S3Reference, place: str) -> None:
    """What no store gives must not be asked for: the client's refusal of a header would look like a fault of the store,
    and be tried again."""
    for name, text in (("version_id", reference.version_id), ("etag", reference.etag)):
        if text is not None and not text.isprintable():
            raise ImageError(
                FailureReason.REFERENCE_REFUSED, f"{place} cannot be asked for: its {name} has control characters"
            )


def _request(reference: S3Reference) -> dict[str, str]:
    request = {"Bucket": reference.bucket, "Key": reference.key}
    if reference.version_id is not None:
        request["VersionId"] = reference.version_id
    if reference.etag is not None:
        request["IfMatch"] = f'"{bare_etag(reference.etag)}"'
    return request


def _refusal(error: botocore.exceptions.ClientError, place: str) -> Exception:
    details = error.response.get("Error", {})
    code = str(details.get("Code", ""))
    said = f"{place}: {code} {details.get('Message', '')}".rstrip()
    if code in _NOT_FOUND:
        return ImageError(FailureReason.IMAGE_NOT_FOUND, said)
    if code in _DENIED:
        return ImageError(FailureReason.ACCESS_DENIED, said)
    if code in _CHANGED:
        return ImageError(FailureReason.HASH_MISMATCH, f"{said}: the object is no longer what the event names")
    if code in _REFUSED:
        return ImageError(FailureReason.REFERENCE_REFUSED, said)
    if code in _CREDENTIALS:
        return StoreRefusedError(said)
    return TransientFetchError(said)
