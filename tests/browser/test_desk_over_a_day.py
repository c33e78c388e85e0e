"""What happens to pages that stay open all day: other tabs, other people at them, nobody at them."""

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from playwright.sync_api import Page, expect
from running_desk import PATIENCE_MS, RunningDesk, enter_password

from worker.review.answers import Lease
from worker.review.desk import Desk
from worker.review.http.roles import Role

SignIn = Callable[..., Page]
TIMES = "\N{MULTIPLICATION SIGN}"


def sign_in_at_another_tab(page: Page, desk: RunningDesk, name: str) -> Page:
    """The browser has one session for all its tabs."""
    page.context.clear_cookies()
    other = page.context.new_page()
    other.goto(desk.address)
    enter_password(other, name)
    other.wait_for_selector("#bar:not([hidden])")
    return other


def test_who_signs_in_anew_at_another_tab_decides_on_at_the_first(desk: RunningDesk, sign_in: SignIn) -> None:
    desk.add_items(8)
    page = sign_in("ana")
    page.wait_for_selector(".frame img")
    sign_in_at_another_tab(page, desk, "ana")
    page.keyboard.press("r")
    assert [decision.reviewer for decision in desk.wait_for_decisions(1)] == ["ana"]
    expect(page.get_by_text("did not count")).to_have_count(0)


def at_an_image(page: Page, address: str) -> None:
    """An image that can be decided about: the one before is gone, and this one is there."""
    page.goto(address)
    page.reload()
    expect(page.locator(".frame:not(.loading) img")).to_be_visible()


def signed_out(page: Page) -> None:
    """The session ends, and the page finds out when it next asks."""
    page.context.clear_cookies()
    page.keyboard.press("r")
    expect(page.get_by_text("Your session is over")).to_be_visible()


def come_back_to(page: Page) -> None:
    """What the browser does when its window is looked at again."""
    page.evaluate("dispatchEvent(new Event('focus'))")


def test_who_was_signed_out_and_signs_in_at_another_tab_goes_on_at_the_first(
    desk: RunningDesk, sign_in: SignIn
) -> None:
    desk.add_items(16, queue="prompt")
    desk.add_items(1)
    page = sign_in("ana")
    at_an_image(page, f"{desk.address}/#/review/prompt")
    signed_out(page)
    come_back_to(page)
    expect(page.get_by_label("Password")).to_be_visible()  # nobody has signed in yet
    sign_in_at_another_tab(page, desk, "ana")
    come_back_to(page)
    expect(page.locator(".frame img")).to_be_visible()
    assert page.url.endswith("#/review/prompt")
    (decision,) = desk.wait_for_decisions(1)
    assert (decision.reviewer, decision.queue) == ("ana", "prompt")


@pytest.mark.parametrize("elsewhere", [True, False])
def test_who_signs_in_where_somebody_else_was_signed_out_begins_anew(
    desk: RunningDesk, sign_in: SignIn, elsewhere: bool
) -> None:
    desk.add_items(16, queue="prompt")
    desk.add_person("ben")
    page = sign_in("ana")
    at_an_image(page, f"{desk.address}/#/review/prompt")
    page.evaluate("window.hers = true")
    signed_out(page)
    if elsewhere:
        sign_in_at_another_tab(page, desk, "ben")
        come_back_to(page)
    else:
        enter_password(page, "ben")
    expect(page.locator(".who")).to_contain_text("ben")
    expect(page.locator(".frame:not(.loading) img")).to_be_visible()
    assert page.evaluate("[window.hers, location.hash]") == [None, ""]
    page.keyboard.press("a")
    assert [decision.reviewer for decision in desk.wait_for_decisions(1)] == ["ben"]
    assert len(json.loads(page.evaluate("sessionStorage.getItem('sluice.outbox.ana')"))) == 1
    page.get_by_role("button", name="Sign out").click()
    enter_password(page, "ana")  # what she decided is sent as hers
    decisions = desk.wait_for_decisions(2)
    assert [(decision.reviewer, decision.outcome) for decision in decisions] == [("ben", "approve"), ("ana", "reject")]


def test_all_that_was_under_way_when_another_tab_signed_in_is_sent_again(desk: RunningDesk, sign_in: SignIn) -> None:
    desk.add_items(1)
    page = sign_in("ana")
    page.wait_for_selector(".frame img")
    sign_in_at_another_tab(page, desk, "ana")
    ended = page.evaluate("""async () => {
        const { post } = await import("/js/parts/api.js");
        const asked = [1, 2, 3].map(() => post("/v1/queues/quality/leases"));
        return (await Promise.allSettled(asked)).map(({ status }) => status);
    }""")
    assert ended == ["fulfilled"] * 3


def test_a_page_is_drawn_anew_for_whoever_signed_in_at_another_tab(desk: RunningDesk, sign_in: SignIn) -> None:
    desk.add_items(2)
    desk.add_person("vera", Role.VIEWER)
    page = sign_in("ana")
    page.wait_for_selector(".frame img")
    other = sign_in_at_another_tab(page, desk, "vera")
    page.keyboard.press("r")
    expect(page.locator(".who")).to_contain_text("vera")
    expect(page.get_by_role("link", name="Review", exact=True)).to_have_count(0)
    assert desk.decisions() == []
    other.get_by_role("button", name="Sign out").click()
    enter_password(page, "ana")  # what she decided is sent as hers
    assert [decision.reviewer for decision in desk.wait_for_decisions(1)] == ["ana"]


def test_a_grid_that_nobody_is_at_gives_its_images_back(desk: RunningDesk, sign_in: SignIn) -> None:
    desk.add_items(3)
    page = sign_in("ana")
    page.clock.install()
    page.goto(f"{desk.address}/#/grid/quality")
    page.reload()
    expect(page.locator(".tile")).to_have_count(3)
    page.clock.fast_forward("11:00")
    expect(page.get_by_role("heading", name="You were away")).to_be_visible()
    ben = sign_in("ben")
    expect(ben.locator(".frame img")).to_be_visible()


def test_a_page_that_is_left_while_it_asks_for_images_keeps_none(
    desk: RunningDesk, sign_in: SignIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.add_items(3)
    page = sign_in("ana")
    expect(page.locator(".frame img")).to_be_visible()
    granted, left, lease = threading.Event(), threading.Event(), Desk.lease

    def answer_late(*arguments: Any, **named: Any) -> list[Lease]:
        leases = lease(*arguments, **named)
        if not granted.is_set():
            granted.set()
            assert left.wait(PATIENCE_MS / 1000)
        return leases

    monkeypatch.setattr(Desk, "lease", answer_late)
    page.goto(f"{desk.address}/#/grid/quality")
    while not granted.is_set():
        page.wait_for_timeout(20)
    page.reload()
    left.set()
    expect(page.locator(".tile")).to_have_count(3)


def test_the_size_of_an_image_is_told_and_that_it_is_drawn_larger(
    desk: RunningDesk, sign_in: SignIn, tmp_path: Path
) -> None:
    Image.new("RGB", (9, 7), "teal").save(tmp_path / "small.png")
    Image.new("RGB", (2000, 1000), "teal").save(tmp_path / "large.png")
    desk.add_items(1, image=tmp_path / "small.png")
    page = sign_in("ana")
    expect(page.locator(".tools .size")).to_contain_text(f"9 {TIMES} 7 drawn")
    page.keyboard.press("b")
    expect(page.locator(".tools .size")).to_have_text(f"9 {TIMES} 7")
    page.keyboard.press("b")
    desk.add_items(1, image=tmp_path / "large.png")
    page.keyboard.press("a")
    expect(page.locator(".tools .size")).to_have_text(f"2000 {TIMES} 1000")


def test_a_policy_that_is_not_saved_survives_a_look_elsewhere(desk: RunningDesk, sign_in: SignIn) -> None:
    page = sign_in("lea", Role.LEAD)
    page.goto(f"{desk.address}/#/policy")
    editor = page.get_by_label("Policy, YAML")
    text = editor.input_value() + "# to be asked about\n"
    editor.fill(text)
    page.get_by_role("link", name="Queues").click()
    expect(page.get_by_role("heading", name="Queues")).to_be_visible()
    page.get_by_role("link", name="Policy").click()
    expect(editor).to_have_value(text)
    expect(page.get_by_text("A changed copy")).to_be_visible()
    page.get_by_role("button", name="Back to the current one").click()
    expect(page.get_by_text("A changed copy")).to_have_count(0)


def test_search_begins_with_the_oldest_when_asked_and_an_address_that_was_cut_off_leads_somewhere(
    desk: RunningDesk, sign_in: SignIn
) -> None:
    desk.add_items(3)
    page = sign_in("lea", Role.LEAD)
    page.goto(f"{desk.address}/#/search")
    expect(page.locator(".tile").first).to_contain_text("number 2")
    page.get_by_label("Order").select_option("oldest first")
    expect(page.locator(".tile").first).to_contain_text("number 0")
    page.goto(f"{desk.address}/#/grid/%E0%A4%A")
    page.reload()
    expect(page.locator(".tile")).to_have_count(3)
