"""The client of S3: what keeps it from being made is told as a fault of the settings."""

import pytest

from worker.s3_client import make_s3_client
from worker.settings import S3Settings, SettingsError


def test_a_profile_that_does_not_exist_is_told_as_a_fault_of_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "no-such-profile")
    with pytest.raises(SettingsError, match=r"no-such-profile.*could not be found"):
        make_s3_client(S3Settings(region="us-east-1"), connect_seconds=1, read_seconds=1, attempts=1)


def test_an_address_that_is_none_is_told_as_a_fault_of_the_settings() -> None:
    settings = S3Settings(endpoint_url="http://[::1", region="us-east-1")
    with pytest.raises(SettingsError, match=r"no client of S3 can be made \(s3\."):
        make_s3_client(settings, connect_seconds=1, read_seconds=1, attempts=1)


def test_patience_is_the_callers_and_all_else_is_the_same_for_all() -> None:
    settings = S3Settings(endpoint_url="http://127.0.0.1:9", region="eu-west-1", addressing_style="path")
    client = make_s3_client(settings, connect_seconds=2, read_seconds=7, attempts=1, max_connections=3)
    config = client.meta.config
    assert (config.connect_timeout, config.read_timeout, config.max_pool_connections) == (2, 7, 3)
    assert config.retries["total_max_attempts"] == 1
    assert (client.meta.endpoint_url, client.meta.region_name) == ("http://127.0.0.1:9", "eu-west-1")
    assert config.s3["addressing_style"] == "path"
