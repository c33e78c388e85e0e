"""A policy that is an object of S3."""

import botocore.exceptions

from worker.policy.errors import PolicyConflict, PolicyError, PolicyReadOnly
from worker.policy.limits import MAX_BYTES, bounded
from worker.policy.text import PolicyText
from worker.s3_client import make_s3_client
from worker.settings import S3Settings


class S3Place:
    """An object of S3. Replaced under the condition (If-Match) that it is still the one that was seen."""

    def __init__(self, address: str, settings: S3Settings) -> None:
        self.address = address
        self._bucket, _, self._key = address.removeprefix("s3://").partition("/")
        self._client = make_s3_client(settings, connect_seconds=3, read_seconds=5, attempts=2)

    def read(self, known: PolicyText | None = None) -> PolicyText:
        condition = {"IfNoneMatch": known.etag} if known is not None and known.etag is not None else {}
        try:
            answer = self._client.get_object(Bucket=self._bucket, Key=self._key, **condition)
            with answer["Body"] as body:
                content = body.read(MAX_BYTES + 1)
        except botocore.exceptions.ClientError as error:
            if known is not None and _code(error) in {"304", "NotModified"}:
                return known
            raise self._failed("cannot be read", error) from None
        except (botocore.exceptions.BotoCoreError, OSError) as error:
            raise self._failed("cannot be read", error) from None
        text = PolicyText(bounded(content, self.address), etag=answer.get("ETag"))
        return known if known is not None and known.digest == text.digest else text

    def replace(self, seen: str, content: bytes) -> PolicyText:
        present = self.read()
        if present.digest != seen or present.etag is None:
            raise PolicyConflict(present)
        try:
            answer = self._client.put_object(
                Bucket=self._bucket,
                Key=self._key,
                Body=content,
                ContentType="application/yaml",
                IfMatch=present.etag,
            )
        except botocore.exceptions.ClientError as error:
            if _code(error) in {"412", "PreconditionFailed", "409", "ConditionalRequestConflict"}:
                raise PolicyConflict(self.read()) from None
            if _code(error) in {"403", "AccessDenied"}:
                raise PolicyReadOnly(f"{self.address}: the desk may not write there: {error}") from None
            raise self._failed("cannot be written", error) from None
        except (botocore.exceptions.BotoCoreError, OSError) as error:
            raise self._failed("cannot be written", error) from None
        return PolicyText(content, etag=answer.get("ETag"))

    def _failed(self, what: str, error: Exception) -> PolicyError:
        return PolicyError(f"{self.address}: {what}: {error}")


def _code(error: botocore.exceptions.ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))
