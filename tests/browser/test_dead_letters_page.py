"""The page of dead letters: a lead finds, looks, redrives and drops."""

import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "dead_letters"))
sys.path.insert(0, str(Path(__file__).parent))

from letter_bench import LetterBench, event
from running_desk import RunningDesk

from schemas import FailureReason
from worker.review.http.roles import Role

SignIn = Callable[..., Page]


@pytest.fixture
def bench(desk: RunningDesk) -> LetterBench:
    bench = LetterBench(desk.folder)
    desk.stop.callback(bench.stack.close)
    for number in range(60):
        tenant = "acme" if number % 2 else "umbrella"
        reason = FailureReason.ACCESS_DENIED if number < 55 else FailureReason.IMAGE_NOT_FOUND
        bench.letter(event(f"event-{number}", tenant), reason=reason, failed_at=datetime.now(UTC))
    return bench


def test_a_lead_filters_looks_drops_one_and_redrives_the_rest(
    desk: RunningDesk, bench: LetterBench, sign_in: SignIn
) -> None:
    page = sign_in("lea", Role.LEAD)
    page.goto(f"{desk.address}/#/dead")
    status = page.locator(".letters-tools [role=status]")
    expect(status).to_have_text("60 letters: 55 access_denied, 5 image_not_found.")
    expect(page.locator("tbody tr")).to_have_count(50)
    page.get_by_role("button", name="More").click()
    expect(page.locator("tbody tr")).to_have_count(60)

    page.get_by_label("Reason").select_option("image_not_found")
    expect(page.locator("tbody tr")).to_have_count(5)
    page.get_by_role("button", name="event-59").click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_role("region", name="Record")).to_contain_text('"bucket": "b"')
    dialog.get_by_role("button", name="Drop …").click()
    page.get_by_label("Why will these events not be submitted again?").fill("a test image")
    page.get_by_role("dialog").get_by_role("button", name="Drop").click()
    expect(page.get_by_text("1 letter dropped")).to_be_visible()
    expect(page.locator("tbody tr")).to_have_count(4)

    page.get_by_label("Reason").select_option("")
    expect(page.locator("tbody tr")).to_have_count(50)
    page.get_by_role("button", name="Choose all 59").click()
    page.get_by_role("button", name="Redrive 59").click()
    page.get_by_role("dialog").get_by_role("button", name="Redrive").click()
    expect(page.get_by_text("59 letters redriven")).to_be_visible()
    expect(status).to_have_text("No letters match.")
    page.get_by_label("State").select_option("dropped")
    expect(page.locator("tbody tr")).to_have_count(1)

    assert bench.submitted == sorted(f"event-{number}" for number in range(59))
    assert {(each.actor, each.action) for each in bench.done} == {("lea", "redrive"), ("lea", "drop")}
    (dropped,) = [each for each in bench.done if each.action == "drop"]
    assert (dropped.event_id, dropped.reason) == ("event-59", "a test image")


def test_a_reviewer_does_not_get_the_page(desk: RunningDesk, sign_in: SignIn) -> None:
    page = sign_in("ana", Role.REVIEWER)
    page.goto(f"{desk.address}/#/dead")
    page.wait_for_timeout(300)
    assert page.get_by_role("heading", name="Dead letters").count() == 0
