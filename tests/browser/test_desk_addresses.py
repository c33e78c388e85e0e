"""Whatever the page shows has an address: items, searches, one's own decisions, the dashboard's time."""

import re
from collections.abc import Callable

from playwright.sync_api import Page, expect
from running_desk import RunningDesk, ready

from worker.review.http.roles import Role

SignIn = Callable[..., Page]


def test_a_search_is_in_the_address_and_back_from_an_item_it_is_as_it_was(desk: RunningDesk, sign_in: SignIn) -> None:
    desk.add_items(3)
    desk.add_items(2, queue="refused")
    page = sign_in("lea", Role.LEAD)
    page.goto(f"{desk.address}/#/search?text=fox&queue=quality&status=open&oldest_first=true")
    expect(page.locator(".tile")).to_have_count(3)
    expect(page.get_by_label("Words")).to_have_value("fox")
    expect(page.get_by_label("State")).to_have_value("open")
    page.get_by_label("Words").fill("number 1")
    page.keyboard.press("Enter")
    expect(page.locator(".tile")).to_have_count(1)
    assert "text=number+1&queue=quality&status=open" in page.url
    page.locator(".tile").click()
    expect(page).to_have_url(f"{desk.address}/#/item/item-001")
    expect(page.locator(".prompt")).to_have_text("a fox in the snow, number 1")
    page.go_back()
    expect(page.get_by_label("Words")).to_have_value("number 1")
    expect(page.locator(".tile")).to_be_focused()
    page.go_back()
    expect(page.locator(".tile")).to_have_count(3)
    page.reload()
    expect(page.get_by_label("Words")).to_have_value("fox")


def test_an_item_that_does_not_exist_is_named(desk: RunningDesk, sign_in: SignIn) -> None:
    page = sign_in()
    page.goto(f"{desk.address}/#/item/nowhere%2Fat%20all")
    expect(page.get_by_role("heading", name="There is no such item")).to_be_visible()
    expect(page.get_by_text("nowhere/at all")).to_be_visible()


def test_a_lead_decides_at_once_about_an_item_that_a_search_found(desk: RunningDesk, sign_in: SignIn) -> None:
    desk.add_items(8)
    page = sign_in("lea", Role.LEAD)
    page.goto(f"{desk.address}/#/search?text=number+6")
    page.locator(".tile").click()
    page.get_by_role("button", name="Decide now").click()
    expect(page).to_have_url(f"{desk.address}/#/review/quality")
    assert ready(page) == "a fox in the snow, number 6"
    page.keyboard.press("r")
    assert [made.item_id for made in desk.wait_for_decisions(1)] == ["item-006"]


def test_a_reviewer_looks_at_their_own_decisions_and_takes_one_back(
    make_desk: Callable[..., RunningDesk], sign_in: SignIn
) -> None:
    desk = make_desk(undo_seconds=300.0)
    desk.add_items(6)
    ben = sign_in("ben", to=desk)
    ready(ben)
    ben.keyboard.press("a")
    desk.wait_for_decisions(1)
    page = sign_in("ana", to=desk)
    prompt = ready(page)
    page.keyboard.press("2")
    page.keyboard.press("r")
    desk.wait_for_decisions(2)
    page.goto(f"{desk.address}/#/mine")
    expect(page.locator(".tile")).to_have_count(1)  # not what ben decided
    expect(page.locator(".tile")).to_contain_text(prompt)
    expect(page.locator(".tile")).to_contain_text("rejected")
    expect(page.locator(".tile")).to_contain_text("anatomy")
    page.get_by_role("button", name="Take back").click()
    expect(page.locator(".prompt")).to_have_text(prompt)
    assert desk.wait_for_decisions(3)[-1].outcome == "reopen"


def test_who_skipped_an_item_may_decide_it_later_and_other_reviewers_may_not(
    desk: RunningDesk, sign_in: SignIn
) -> None:
    desk.add_items(1)
    page = sign_in("ana")
    ready(page)
    page.keyboard.press("s")
    desk.wait_for_decisions(1)
    page.goto(f"{desk.address}/#/item/item-000")
    page.get_by_role("button", name="Decide now").click()
    ready(page)
    page.keyboard.press("a")
    desk.wait_for_decisions(2)
    desk.add_items(1)
    page.goto(f"{desk.address}/#/item/item-001")
    expect(page.locator(".prompt")).to_be_visible()
    assert page.get_by_role("button", name="Decide now").count() == 0
    status = """async () => {
        const { post } = await import("/js/parts/api.js");
        return post("/v1/items/item-001/take").then(() => 200, ({ status }) => status);
    }"""
    assert page.evaluate(status) == 403


def test_the_dashboard_s_time_is_in_the_address_and_a_month_is_drawn_in_days(
    desk: RunningDesk, sign_in: SignIn
) -> None:
    desk.add_items(2)
    desk.add_events(5)
    page = sign_in("lea", Role.LEAD)
    page.goto(f"{desk.address}/#/dashboard?hours=720")
    expect(page.get_by_role("img", name=re.compile("Events that came each day: .* 5 in all"))).to_be_visible()
    expect(page.get_by_role("button", name="a month")).to_have_attribute("aria-pressed", "true")
    page.get_by_role("button", name="a week").click()
    expect(page.get_by_role("img", name=re.compile("Events that came each 6 hours: .* 5 in all"))).to_be_visible()
    assert page.url.endswith("#/dashboard?hours=168")
    page.go_back()
    expect(page.get_by_role("button", name="a month")).to_have_attribute("aria-pressed", "true")
