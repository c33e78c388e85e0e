"""Actions keep what was said, can be undone one after the other, and are never done to an image that was not seen."""

import json
import re
from collections.abc import Callable

from playwright.sync_api import Page, Route, expect
from running_desk import RunningDesk, ready

from worker.review.http.roles import Role
from worker.review.index import keys

SignIn = Callable[..., Page]


def say(page: Page, note: str) -> None:
    """Gives the first reason and a note."""
    page.keyboard.press("1")
    page.keyboard.press("n")
    page.keyboard.type(note)
    page.keyboard.press("Escape")


def test_escalate_hold_and_skip_record_the_reasons_and_the_note(desk: RunningDesk, sign_in: SignIn) -> None:
    desk.add_items(4)
    page = sign_in()
    for key, note in (("e", "is this a real person?"), ("w", "ask the customer"), ("s", "cannot say")):
        ready(page)
        say(page, note)
        page.keyboard.press(key)
    decisions = desk.wait_for_decisions(3)
    assert [(made.outcome, made.labels, made.note) for made in decisions] == [
        ("escalate", ("artefacts",), "is this a real person?"),
        ("hold", ("artefacts",), "ask the customer"),
        ("skip", ("artefacts",), "cannot say"),
    ]


def test_a_lead_sees_on_top_who_escalated_an_image_and_why(desk: RunningDesk, sign_in: SignIn) -> None:
    desk.add_items(1)
    ana = sign_in("ana")
    ready(ana)
    say(ana, "is this a real person?")
    ana.keyboard.press("e")
    desk.wait_for_decisions(1)
    lea = sign_in("lea", Role.LEAD)
    lea.goto(f"{desk.address}/#/review/quality/escalated")
    first = lea.locator(".side > section").first
    expect(first).to_contain_text("Escalated by ana")
    expect(first).to_contain_text("artefacts")
    expect(first).to_contain_text("is this a real person?")


def test_undo_takes_back_one_action_after_the_other_the_newest_first_and_says_which(
    make_desk: Callable[..., RunningDesk], sign_in: SignIn
) -> None:
    desk = make_desk(undo_seconds=120.0)
    desk.add_items(6)
    page = sign_in(to=desk)
    prompts = []
    for number, key in enumerate("aesw", start=1):
        prompts.append(ready(page))
        page.keyboard.press(key)
        desk.wait_for_decisions(number)
    for number, (word, prompt) in enumerate(
        zip(("put on hold", "skipped", "escalated", "approved"), prompts[::-1], strict=True), start=5
    ):
        page.keyboard.press("u")
        expect(page.get_by_text(f"Taken back: {word}").last).to_be_visible()
        expect(page.locator(".prompt")).to_have_text(prompt)
        desk.wait_for_decisions(number)
    decisions = desk.decisions()
    assert [made.outcome for made in decisions] == ["approve", "escalate", "skip", "hold"] + ["reopen"] * 4
    assert [made.undoes for made in decisions[4:]] == [made.decision_id for made in decisions[3::-1]]
    page.keyboard.press("u")
    expect(page.get_by_text("There is nothing to undo")).to_be_visible()


def test_undo_works_from_another_view_and_leads_back_to_the_image(
    make_desk: Callable[..., RunningDesk], sign_in: SignIn
) -> None:
    desk = make_desk(undo_seconds=120.0)
    desk.add_items(2)
    page = sign_in(to=desk)
    page.goto(f"{desk.address}/#/review/quality")
    prompt = ready(page)
    say(page, "too early")
    page.keyboard.press("e")
    desk.wait_for_decisions(1)
    page.keyboard.press("Shift+q")
    expect(page.get_by_role("heading", name="Queues")).to_be_visible()
    page.keyboard.press("u")
    expect(page.locator(".prompt")).to_have_text(prompt)
    expect(page.get_by_text("Taken back: escalated")).to_be_visible()
    expect(page.get_by_label("Note for others")).to_have_value("too early")
    assert [made.outcome for made in desk.wait_for_decisions(2)] == ["escalate", "reopen"]


def test_an_escalation_without_a_connection_is_kept_with_its_note_and_sent_later(
    desk: RunningDesk, sign_in: SignIn
) -> None:
    desk.add_items(4)
    page = sign_in()
    prompt = ready(page)
    page.wait_for_timeout(500)  # the next image is fetched ahead
    say(page, "who is this?")
    page.context.set_offline(True)
    page.keyboard.press("e")
    expect(page.get_by_text("The connection to the desk is lost")).to_be_visible()
    expect(page.locator(".prompt")).not_to_have_text(prompt)
    expect(page.get_by_label("Note for others")).to_have_value("")
    page.context.set_offline(False)
    (made,) = desk.wait_for_decisions(1)
    assert (made.outcome, made.labels, made.note) == ("escalate", ("artefacts",), "who is this?")
    assert prompt.endswith(made.event_id.removeprefix("event-"))


def test_who_skipped_everything_is_told_so_and_can_look_again(desk: RunningDesk, sign_in: SignIn) -> None:
    desk.add_items(2)
    page = sign_in()
    for number in (1, 2):
        ready(page)
        page.keyboard.press("s")
        desk.wait_for_decisions(number)
    expect(page.get_by_role("heading", name="Nothing for you now")).to_be_visible()
    expect(page.get_by_text("you skipped or judged them")).to_be_visible()
    page.get_by_role("link", name="Look again at what you skipped").click()
    for number in (3, 4):
        ready(page)
        page.keyboard.press("r")
        desk.wait_for_decisions(number)
    expect(page.get_by_role("heading", name="No skipped images left")).to_be_visible()
    assert [made.outcome for made in desk.decisions()] == ["skip", "skip", "reject", "reject"]


def test_a_queue_that_does_not_exist_is_not_called_clear(desk: RunningDesk, sign_in: SignIn) -> None:
    desk.add_items(1)
    page = sign_in()
    for view in ("review", "grid"):
        page.goto(f"{desk.address}/#/{view}/qualiti")
        expect(page.get_by_role("heading", name="There is no such queue")).to_be_visible()
        expect(page.get_by_role("heading", name="All clear")).to_have_count(0)


def test_the_grid_decides_nothing_about_images_that_are_not_loaded(desk: RunningDesk, sign_in: SignIn) -> None:
    desk.add_items(3)
    page = sign_in()
    held: list[Route] = []
    page.route("**/v1/images/**", lambda route: held.append(route))
    page.goto(f"{desk.address}/#/grid/quality")
    expect(page.locator(".tile")).to_have_count(3)
    page.keyboard.press("c")
    page.keyboard.press("r")
    expect(page.get_by_text("3 images of 3 are not loaded yet, so nothing was decided")).to_be_visible()
    assert desk.decisions() == []
    page.unroute("**/v1/images/**")  # lets those go that were held
    page.wait_for_function("() => [...document.querySelectorAll('.tile img')].every((image) => image.naturalWidth)")
    page.keyboard.press("r")
    assert [made.outcome for made in desk.wait_for_decisions(3)] == ["reject"] * 3


def test_the_grid_skips_and_escalates_with_reasons_and_a_note(desk: RunningDesk, sign_in: SignIn) -> None:
    desk.add_items(3)
    page = sign_in()
    page.goto(f"{desk.address}/#/grid/quality")
    expect(page.locator(".tile")).to_have_count(3)
    page.keyboard.press(" ")
    page.keyboard.press("ArrowRight")
    page.keyboard.press(" ")
    say(page, "the same person?")
    page.keyboard.press("e")
    escalated = desk.wait_for_decisions(2)
    assert {(made.outcome, made.labels, made.note) for made in escalated} == {
        ("escalate", ("artefacts",), "the same person?")
    }
    page.locator(".tile").focus()
    page.keyboard.press("s")
    assert desk.wait_for_decisions(3)[-1].outcome == "skip"
    page.keyboard.press("u")
    expect(page.locator(".tile")).to_have_count(1)
    page.keyboard.press("u")
    expect(page.locator(".tile")).to_have_count(3)
    expect(page.get_by_label("Note for others")).to_have_value("the same person?")


def test_a_desk_that_takes_no_decisions_now_is_told_from_a_lost_connection(desk: RunningDesk, sign_in: SignIn) -> None:
    desk.add_items(3)
    page = sign_in()
    ready(page)
    detail = "the index is being built from the topics: 1,200 of 20,000 items"
    problem = {"type": "urn:sluice:problem:not-ready", "status": 503, "detail": detail}
    page.route(
        re.compile("/v1/(decisions|queues/.*/leases)"),
        lambda route: route.fulfill(status=503, content_type="application/problem+json", body=json.dumps(problem)),
    )
    page.keyboard.press("a")
    expect(page.locator("#connection")).to_contain_text("1,200 of 20,000 items")
    expect(page.get_by_text("The connection to the desk is lost")).to_have_count(0)
    page.unroute(re.compile("/v1/(decisions|queues/.*/leases)"))
    assert desk.wait_for_decisions(1)[0].outcome == "approve"
    expect(page.locator("#connection")).to_be_hidden()


def test_the_page_shows_how_far_the_index_is_built(desk: RunningDesk, sign_in: SignIn) -> None:
    desk.add_items(1)
    desk.redis.hset(keys.PROGRESS, mapping={"phase": "filling", "done": 1200, "total": 20000})
    page = sign_in()
    ready(page)  # what is in the index can be worked on
    expect(page.locator("#connection")).to_contain_text("building its index: 1,200 of 20,000 items")
    desk.redis.delete(keys.PROGRESS)
    expect(page.locator("#connection")).to_be_hidden()


def test_expected_quality_and_most_likely_grade_do_not_contradict_each_other(
    desk: RunningDesk, sign_in: SignIn
) -> None:
    desk.add_items(1)
    page = sign_in()
    ready(page)
    expect(page.locator(".verdict")).to_have_text(re.compile(r"1\.50\s*expected quality, of 5\s*most likely bad, 50 %"))
    page.goto(f"{desk.address}/#/grid/quality")
    expect(page.locator(".tile .badge")).to_contain_text("bad")
