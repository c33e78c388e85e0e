"""The policy as an object of a real S3."""

from collections.abc import Iterator
from typing import Any

import pytest

from worker.policy import PolicyError
from worker.policy.errors import PolicyConflict
from worker.policy.s3_place import S3Place
from worker.policy.watch import PolicyWatch
from worker.settings import S3Settings


def text(version: str) -> bytes:
    return (
        f"schema: sluice.policy/1\nversion: '{version}'\nrules:\n  - name: default\n    route: {{action: pass}}\n"
    ).encode()


@pytest.fixture
def place(s3_server: Any, bucket: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Place]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", s3_server.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", s3_server.secret_key)
    settings = S3Settings(endpoint_url=s3_server.endpoint, region=s3_server.region, addressing_style="path")
    yield S3Place(f"s3://{bucket}/policies/live.yaml", settings)
    s3_server.client().delete_object(Bucket=bucket, Key="policies/live.yaml")


@pytest.fixture
def put(s3_server: Any, bucket: str) -> Any:
    def write(content: bytes) -> None:
        s3_server.client().put_object(Bucket=bucket, Key="policies/live.yaml", Body=content)

    return write


def test_a_policy_saved_in_s3_comes_into_force_and_an_old_view_of_it_saves_nothing(place: S3Place, put: Any) -> None:
    put(text("1"))
    watch = PolicyWatch(place, {})
    seen = place.read()
    assert place.read(seen) is seen
    place.replace(seen.digest, text("2"))
    watch.look()
    assert watch.active.live.version == "2"
    with pytest.raises(PolicyConflict) as refused:
        place.replace(seen.digest, text("3"))
    assert refused.value.present.content == text("2")


def test_a_change_between_looking_and_writing_is_found_by_the_store(
    place: S3Place, put: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(text("1"))
    seen = place.read()
    read = place.read
    looks = []

    def read_then_change(*known: Any) -> Any:
        found = read(*known)
        if not looks:
            put(text("theirs"))
        looks.append(found)
        return found

    monkeypatch.setattr(place, "read", read_then_change)
    with pytest.raises(PolicyConflict) as refused:
        place.replace(seen.digest, text("mine"))
    assert refused.value.present.content == text("theirs")
    assert read().content == text("theirs")


def test_an_object_that_is_not_there_is_told_with_its_address(place: S3Place) -> None:
    with pytest.raises(PolicyError, match=r"policies/live.yaml: cannot be read: .*NoSuchKey"):
        PolicyWatch(place, {})
