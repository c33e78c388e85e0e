"""One fetcher for every kind of reference, built from the settings."""

from pathlib import Path

import pytest

from schemas import FailureReason, FileReference, HttpReference, InlineReference, S3Reference
from worker.images.errors import ImageError, TransientFetchError
from worker.images.fetch import build_fetcher
from worker.settings import FileSettings, ImageSettings, S3Settings, Settings


def test_every_kind_of_reference_reaches_its_fetcher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "anything")
    (tmp_path / "a.png").write_bytes(b"12345")
    fetcher = build_fetcher(
        Settings(
            files=FileSettings(roots=(tmp_path,)),
            images=ImageSettings(max_bytes=5, fetch_timeout_seconds=1),
            s3=S3Settings(endpoint_url="http://127.0.0.1:9", region="us-east-1"),
        )
    )
    assert fetcher.fetch(FileReference(path=str(tmp_path / "a.png"))).data == b"12345"
    assert fetcher.fetch(InlineReference(bytes=b"54321")).data == b"54321"
    with pytest.raises(ImageError) as too_large:
        fetcher.fetch(InlineReference(bytes=b"123456"))
    assert too_large.value.reason is FailureReason.IMAGE_TOO_LARGE
    with pytest.raises(ImageError) as refused:
        fetcher.fetch(HttpReference(url="http://127.0.0.1:9/a.png"))
    assert refused.value.reason is FailureReason.REFERENCE_REFUSED
    with pytest.raises(TransientFetchError, match="s3://images/a"):
        fetcher.fetch(S3Reference(bucket="images", key="a"))
    fetcher.close()


@pytest.mark.parametrize("field", ["etag", "version_id"])
@pytest.mark.parametrize("text", ["a\r\nX-Other: b", "a\0", "\u2028"])
def test_a_reference_that_no_store_has_given_is_refused_for_good(field: str, text: str) -> None:
    fetcher = build_fetcher(Settings(s3=S3Settings(endpoint_url="http://127.0.0.1:9", region="us-east-1")))
    with pytest.raises(ImageError, match=f"its {field} has control characters") as refused:
        fetcher.fetch(S3Reference.model_validate({"bucket": "images", "key": "a", field: text}))
    assert refused.value.reason is FailureReason.REFERENCE_REFUSED
    fetcher.close()


def test_an_endpoint_that_is_no_address_is_an_error_at_set_up() -> None:
    with pytest.raises(ValueError, match="endpoint"):
        build_fetcher(Settings(s3=S3Settings(endpoint_url="no address", region="us-east-1")))


def test_image_bytes_do_not_show_where_a_fetched_image_is_printed(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"pixels")
    fetcher = build_fetcher(Settings(files=FileSettings(roots=(tmp_path,)), s3=S3Settings(region="us-east-1")))
    assert "pixels" not in repr(fetcher.fetch(FileReference(path="a.png")))
