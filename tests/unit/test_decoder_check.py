"""`sluice doctor` says whether images can be decoded in confined processes on this machine."""

import pytest

from worker.images import decoder_process, syscall_filter
from worker.preflight import CheckStatus, Finding, check_decoders
from worker.preflight import decoders as check
from worker.settings import ImageSettings


def found(**settings: object) -> Finding:
    (finding,) = check_decoders(ImageSettings.model_validate(settings))
    return finding


def test_a_process_is_started_and_its_filter_named() -> None:
    finding = found()
    filtered = syscall_filter.unavailable() is None
    assert finding.status is (CheckStatus.OK if filtered else CheckStatus.WRONG)
    assert "seccomp" in finding.detail


def test_processes_without_a_filter_are_told_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(syscall_filter, "unavailable", lambda: "there is none for Linux on s390x")
    finding = found()
    assert finding.status is CheckStatus.WRONG
    assert finding.detail == "they run without a seccomp filter: there is none for Linux on s390x"
    assert "limit what the worker's user may reach" in finding.advice


def test_processes_that_cannot_be_started_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoder_process, "_CHILD", "worker.images.no_such_module")
    assert "no decoder process can be started" in found().detail


def test_without_processes_there_is_nothing_to_check(monkeypatch: pytest.MonkeyPatch) -> None:
    assert list(check_decoders(ImageSettings(decoder_processes="off"))) == []
    monkeypatch.setattr(check, "SUPPORTED", False)
    assert found().status is CheckStatus.UNKNOWN
