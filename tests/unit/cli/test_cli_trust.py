"""`sluice trust report` on the embedded log."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner

from schemas import AuditPlan, AuditStratum, Decision, FileReference, Route, Scores, Source, Verdict
from schemas.base import Contract
from worker.cli.main import app
from worker.intake.embedded import open_embedded_topics
from worker.intake.log import Output
from worker.settings import Settings, TopicSettings
from worker.trust.drawing import draw_point

MODEL = f"sha256:{'a' * 64}"
NOW = datetime.now(UTC)
TOPICS = TopicSettings()


def passed(number: int, tenant: str = "acme") -> Verdict:
    return Verdict(
        verdict_id=f"v{number}",
        event_id=f"e{number}",
        tenant=tenant,
        occurred_at=NOW,
        judged_at=NOW - timedelta(days=number // 100),
        image=FileReference(path=f"/{number}.png"),
        content_hash=None,
        status="scored",
        scores=Scores(quality=4.0),
        route=Route(action="pass", rule="default"),
        model=MODEL,
        policy=MODEL,
        source=Source(topic="images.in", partition=0, offset=number),
    )


def changed(number: int, *, days: int, quality: float) -> Verdict:
    update = {"judged_at": NOW - timedelta(days=days), "scores": Scores(quality=quality)}
    return passed(number).model_copy(update=update)


def decided(number: int, outcome: str, token: int = 1, **more: object) -> Decision:
    return Decision.model_validate(
        {
            "decision_id": f"d{number}-{token}",
            "item_id": f"v{number}",
            "verdict_id": f"v{number}",
            "event_id": f"e{number}",
            "tenant": "acme",
            "queue": "audit",
            "reviewer": "ann",
            "outcome": outcome,
            "resolution": outcome if outcome in ("approve", "reject") else None,
            "decided_at": NOW,
            "fencing_token": token,
            **more,
        }
    )


def write(data: Path, topic: str, *records: Contract | bytes) -> None:
    topics = open_embedded_topics(Settings(), data)
    values = [
        record if isinstance(record, bytes) else record.model_dump_json(by_alias=True).encode() for record in records
    ]
    topics.append([Output(topic, value, key=str(number).encode()) for number, value in enumerate(values)])
    topics.close()


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """400 images passed, and every one is drawn for the audit; of 120 that were
    audited, one is bad, and one more was decided and reopened."""
    every = AuditPlan(
        effective_from=NOW - timedelta(days=9),
        made_at=NOW,
        uniform_share=1.0,
        strata=(AuditStratum(name="all", probability=1.0),),
    )
    write(tmp_path, TOPICS.audit_plans, every)
    write(tmp_path, TOPICS.verdicts, *(passed(number) for number in range(400)), passed(400, tenant="globex"))
    write(
        tmp_path,
        TOPICS.decisions,
        *(decided(number, "reject" if number == 7 else "approve") for number in range(120)),
        decided(120, "reject"),
        decided(120, "reopen", token=2),
        decided(121, "reject", queue="quality"),
    )
    return tmp_path


def run(data: Path, *options: str, command: str = "report") -> tuple[int, str]:
    result = CliRunner().invoke(app, ["trust", command, "--data", str(data), *options])
    return result.exit_code, result.output


def test_the_audits_of_each_tenant_are_counted_with_an_interval_and_a_certificate(data: Path) -> None:
    code, output = run(data, "--json", "--at-most", "0.1")
    assert code == 0
    acme, globex = json.loads(output)["rates"]
    assert (acme["cell"]["tenant"], acme["passed"], acme["audited"], acme["missed"]) == ("acme", 400, 120, 1)
    assert acme["estimate"]["interval"]["low"] < 1 / 120 < acme["estimate"]["interval"]["high"] < 0.1
    assert acme["certificate"]["state"] == "certified"
    assert (globex["audited"], globex["estimate"]["share"], globex["certificate"]["state"]) == (0, None, "undecided")
    assert globex["reason"] == "none of the 1 drawn images has been judged yet"


def test_the_table_is_explained_in_sentences(data: Path) -> None:
    code, output = run(data, "--at-most", "0.01")
    assert code == 0
    assert "0.83%" in output
    assert "more audits without a bad image would certify it" in output
    assert "globex (aaaaaaaa, aaaaaaaa): none of the 1 drawn images has been judged yet" in output


def test_audits_without_a_plan_that_draws_them_are_left_out_and_told(tmp_path: Path) -> None:
    write(tmp_path, TOPICS.verdicts, *(passed(number) for number in range(100)))
    write(tmp_path, TOPICS.decisions, *(decided(number, "approve") for number in range(100)))
    drawn = sum(draw_point(f"e{number}") < 0.01 for number in range(100))
    code, output = run(tmp_path)
    assert code == 0
    assert f"no plan draws them, so their probability is unknown: {100 - drawn}" in output


def test_a_change_of_the_images_is_told_and_withdraws_the_certificate(data: Path) -> None:
    before = [changed(number, days=20, quality=4.0) for number in range(1000, 1200)]
    now = [changed(number, days=1, quality=2.5) for number in range(1200, 1300)]
    write(data, TOPICS.verdicts, *before, *now)
    code, output = run(data, "--at-most", "0.2")
    assert code == 0
    assert "withdrawn" in output
    assert "acme, unknown generator: the quality has changed: mean 4.00, now 3.70 (20% of the images moved)" in output
    document = json.loads(run(data, "--at-most", "0.2", "--json")[1])
    assert document["rates"][0]["certificate"]["state"] == "certified"
    assert len(document["rates"][0]["withdrawn_because"]) == 1

    code, output = run(data, "--exit-code", command="drift")
    assert code == 3
    assert "look at e1299" in output
    cells = json.loads(run(data, "--json", command="drift")[1])["cells"]
    assert cells[0]["alarms"][0]["kind"] == "quality"


def test_without_verdicts_or_a_change_drift_says_so(tmp_path: Path) -> None:
    assert run(tmp_path, command="drift")[1].strip() == "no image was judged in the last 7 days"
    write(tmp_path, TOPICS.verdicts, passed(1))
    code, output = run(tmp_path, "--exit-code", command="drift")
    assert code == 0
    assert "nothing has changed that can be told from chance" in output


def test_only_recent_images_count_on_request(data: Path) -> None:
    _, output = run(data, "--json", "--days", "1")
    assert json.loads(output)["rates"][0]["passed"] == 100


def test_a_log_without_verdicts_says_so(tmp_path: Path) -> None:
    code, output = run(tmp_path)
    assert (code, output.strip()) == (0, "no image has passed yet, so there is nothing to audit")


def test_records_that_cannot_be_read_are_counted_and_end_with_1(data: Path) -> None:
    write(data, TOPICS.decisions, b"not json")
    code, output = run(data)
    assert code == 1
    assert f"1 of {TOPICS.decisions}" in output
    assert "acme" in output  # the rest is told all the same


@pytest.mark.parametrize("option", [("--at-most", "0"), ("--at-most", "1"), ("--confidence", "95")])
def test_shares_outside_of_0_and_1_are_refused(data: Path, option: tuple[str, str]) -> None:
    code, output = run(data, *option)
    assert code == 2
    assert option[0] in output
