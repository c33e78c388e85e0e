"""`sluice replay` on the embedded log, as a trust-and-safety lead uses it."""

from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from schemas import Verdict
from worker.cli.main import app
from worker.intake.embedded import open_embedded_topics
from worker.intake.log import Output
from worker.intake.sqlite_topics import SqliteTopics
from worker.policy.loading import DEFAULT
from worker.samples.sample import load_samples
from worker.settings import Settings


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def sluice(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def counts(topics: SqliteTopics) -> dict[str, int]:
    names = Settings().kafka.topics.model_dump(exclude_none=True)
    return {name: sum(topics.ends(topic).values()) for name, topic in names.items()}


def test_a_stricter_policy_is_tried_on_past_events_and_the_report_shows_what_changed(tmp_path: Path) -> None:
    samples = [str(sample.path) for sample in load_samples()[:6]]
    begin = datetime.now(UTC).replace(microsecond=0)
    assert sluice("submit", *samples, "--data", "data").exit_code == 0
    times = ["--from", begin.isoformat(), "--to", (datetime.now(UTC) + timedelta(seconds=2)).isoformat()]
    first = sluice("replay", *times, "--data", "data")
    assert first.exit_code == 0, first.output
    assert "6 have no past verdict to compare with" in first.stdout
    policy = tmp_path / "strict.yaml"
    policy.write_text(DEFAULT.read_text().replace("poor: 2.2 ", "poor: 5.0 "))
    with closing(open_embedded_topics(Settings(), tmp_path / "data")) as topics:
        # What the live worker would have written: the first replay's verdicts.
        found = topics.read(dict.fromkeys(topics.ends("images.replays"), 0))
        topics.append([Output("images.verdicts", record.value or b"", record.key) for record in found])
        before = counts(topics)

        result = sluice("replay", *times, "--policy", str(policy), "--report", "out/r.html", "--data", "data")
        again = sluice("replay", *times, "--policy", str(policy), "--data", "data")

        assert result.exit_code == again.exit_code == 0, result.output
        changed = [
            verdict
            for record in found
            if (verdict := Verdict.model_validate_json(record.value or b"")).route.rule not in ("broken", "poor")
        ]
        assert changed
        assert "6 events judged again" in result.stdout
        assert "6 events judged again" in again.stdout
        after = counts(topics)
        assert after.pop("replays") == before.pop("replays") + 6
        assert after == before
        assert topics.committed("sluice", "images.in") == {}
    page = (tmp_path / "out" / "r.html").read_text()
    assert page.count("data:image/jpeg;base64,") == len([v for v in changed if v.route.action != "review"])
    assert "http://" not in page.replace("http-equiv", "")
