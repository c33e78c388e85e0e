"""`sluice dead` as an operator meets it, on an embedded log."""

import json
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

sys.path.insert(0, str(Path(__file__).parents[1] / "dead_letters"))

from letter_bench import NOW, LetterBench, event

from schemas import FailureReason
from worker.cli.dead_letter_runs import Rate
from worker.cli.errors import UsageError
from worker.cli.main import app
from worker.cli.times import point_in_time


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LetterBench]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    bench = LetterBench(tmp_path / "data")
    with bench.stack:
        bench.letter(event("e1", "acme"))
        bench.letter(event("e2", "umbrella"), reason=FailureReason.ACCESS_DENIED)
        yield bench


def dead(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["dead", *arguments, "--data", "data"])


def listed(*arguments: str) -> list[str]:
    return sorted(json.loads(line)["event_id"] for line in dead("list", "--json", *arguments).stdout.splitlines())


def test_letters_are_listed_with_reason_tenant_and_source(bench: LetterBench) -> None:
    result = dead("list")

    lines = result.stdout.splitlines()
    assert len(lines) == 2
    assert any("access_denied" in line and "umbrella" in line and "images.in/0@1" in line for line in lines)
    assert "2 letters (1 access_denied, 1 image_not_found)" in result.stderr
    assert listed("--tenant", "acme") == ["e1"]
    assert listed("--failure", "access_denied") == ["e2"]
    assert listed("--since", "2026-12-01") == []
    assert listed("--limit", "1") != listed()


def test_one_letter_is_shown_with_its_record_and_written_to_a_file(bench: LetterBench, tmp_path: Path) -> None:
    (letter,) = json.loads(f"[{dead('list', '--json', '--tenant', 'acme').stdout}]")
    shown = dead("show", letter["letter_id"][:6]).stdout
    dead("show", letter["letter_id"], "--payload", "record.json")

    assert "image_not_found: no object" in shown
    assert '"bucket": "b"' in shown
    assert (tmp_path / "record.json").read_bytes() == event("e1").model_dump_json(by_alias=True).encode()
    assert dead("show", "zz").exit_code == 2


def test_a_dry_run_names_the_letters_and_does_nothing(bench: LetterBench) -> None:
    result = dead("redrive", "--tenant", "acme", "--dry-run")

    assert "image_not_found" in result.stdout
    assert "1 letters match" in result.stdout
    assert bench.images == []
    assert bench.done == []


def test_what_is_redriven_and_dropped_leaves_the_list_and_says_by_whom(bench: LetterBench) -> None:
    assert "1 redriven" in dead("redrive", "--failure", "access_denied", "--by", "ana").stdout
    assert "1 dropped" in dead("drop", "--all", "--reason", "a test", "--by", "bo").stdout

    assert bench.submitted == ["e2"]
    assert listed() == []
    assert listed("--state", "dropped") == ["e1"]
    assert listed("--any-state") == ["e1", "e2"]
    assert {(each.actor, each.action) for each in bench.done} == {("ana", "redrive"), ("bo", "drop")}
    assert {(each.actor, each.action) for each in bench.audit} == {
        ("ana", "dead-letter-redrive"), ("bo", "dead-letter-drop"),
    }  # fmt: skip
    assert "nothing was done" in dead("redrive", "--all").stdout


def test_a_letter_that_cannot_be_redriven_is_named_and_the_exit_code_is_1(bench: LetterBench) -> None:
    bench.letter(None, reason=FailureReason.MALFORMED_EVENT)
    result = dead("redrive", "--all", "--yes")

    assert result.exit_code == 1
    assert "its record has no value" in result.stderr
    assert "1 of 3 letters cannot be redriven" in result.stderr
    assert bench.submitted == ["e1", "e2"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("redrive",), "select letters by id"),
        (("redrive", "--all", "--tenant", "acme"), "select letters by id"),
        (("drop", "--all", "--reason", " "), "--reason: must not be empty"),
        (("list", "--since", "yesterday"), "--since: expected a time such as"),
    ],
)
def test_what_is_not_clear_is_refused(bench: LetterBench, arguments: tuple[str, ...], told: str) -> None:
    result = dead(*arguments)
    assert result.exit_code == 2
    assert told in result.stderr
    assert bench.done == []


def test_a_rate_is_kept_over_many_parts() -> None:
    now = [0.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    rate = Rate(20.0, lambda: now[0], sleep)
    for _ in range(10):
        rate.wait(rate.at_once)
    assert rate.at_once == 20
    assert now[0] == pytest.approx(9.0)


def test_times_are_read_as_dates_with_and_without_offset_and_as_ages() -> None:
    assert point_in_time("2h", "--since", NOW) == NOW - timedelta(hours=2)
    assert point_in_time("2026-11-30", "--since", NOW) == datetime(2026, 11, 30, tzinfo=UTC)
    assert point_in_time("2026-11-30T14:00+02:00", "--since", NOW) == NOW
    with pytest.raises(UsageError, match="--until"):
        point_in_time("2 fortnights", "--until", NOW)
