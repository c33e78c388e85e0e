"""The keyboard on other layouts, with input methods, and after a select was used; and leaving and coming back."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from playwright.sync_api import Browser, Page, Route, expect
from running_desk import PATIENCE_MS, RunningDesk, enter_password, ready, shown_prompt

from worker.review.http.roles import Role

SignIn = Callable[..., Page]


def press(page: Page, key: str, code: str, **more: object) -> None:
    """A key press as another layout, or an input method, makes it."""
    page.evaluate(
        "(event) => document.activeElement.dispatchEvent("
        "new KeyboardEvent('keydown', { bubbles: true, cancelable: true, ...event }))",
        {"key": key, "code": code, **more},
    )


@pytest.mark.parametrize(("key", "code"), [("к", "KeyR"), ("Process", "KeyR"), ("ق", "KeyR"), ("R", "KeyP")])
def test_decision_keys_act_on_every_layout_and_with_an_input_method(
    desk: RunningDesk, sign_in: SignIn, key: str, code: str
) -> None:
    desk.add_items(2)
    page = sign_in()
    ready(page)
    press(page, key, code)
    assert desk.wait_for_decisions(1)[0].outcome == "reject"


def test_digits_of_a_french_keyboard_give_reasons_and_a_composition_does_nothing(
    desk: RunningDesk, sign_in: SignIn
) -> None:
    desk.add_items(2)
    page = sign_in()
    prompt = ready(page)
    press(page, "é", "Digit2")
    expect(page.get_by_role("button", name="anatomy")).to_have_attribute("aria-pressed", "true")
    press(page, "r", "KeyR", isComposing=True)
    page.get_by_label("Note for others").focus()
    press(page, "Process", "KeyR")
    press(page, "Escape", "Escape", isComposing=True)  # ends the composition, not the note
    expect(page.get_by_label("Note for others")).to_be_focused()
    assert shown_prompt(page) == prompt
    assert desk.decisions() == []


def test_after_a_queue_was_chosen_keys_act_on_its_images(desk: RunningDesk, sign_in: SignIn) -> None:
    desk.add_items(2)
    desk.add_items(2, queue="refused")
    page = sign_in()
    page.goto(f"{desk.address}/#/review/quality")
    ready(page)
    select = page.get_by_role("combobox", name="Queue")
    select.focus()
    select.select_option("refused")
    expect(page).to_have_url(f"{desk.address}/#/review/refused")
    expect(page.get_by_role("heading", name="Review: refused")).to_be_attached()
    ready(page)
    page.keyboard.press("r")
    assert [(made.queue, made.outcome) for made in desk.wait_for_decisions(1)] == [("refused", "reject")]
    page.keyboard.press("q")  # the letter of another queue
    page.wait_for_timeout(200)
    assert page.url == f"{desk.address}/#/review/refused"


@pytest.fixture
def with_back_cache(chromium: Browser, desk: RunningDesk) -> Iterator[Page]:
    """A page of a browser that keeps pages for Back, as browsers do; Playwright switches that off."""
    with ExitStack() as stack:
        browser = chromium.browser_type.launch(
            executable_path=shutil.which("chromium")
            or shutil.which("chromium-browser")
            or shutil.which("google-chrome"),
            args=["--no-sandbox", "--disable-gpu", "--enable-features=BackForwardCache"],
            ignore_default_args=["--disable-back-forward-cache"],
        )
        stack.callback(browser.close)
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        page.set_default_timeout(PATIENCE_MS)
        desk.add_person("ana")
        page.goto(desk.address)
        enter_password(page, "ana")
        page.wait_for_selector("#bar:not([hidden])")
        yield page


def test_who_comes_back_by_the_browser_s_back_button_goes_on_deciding(desk: RunningDesk, with_back_cache: Page) -> None:
    page = with_back_cache
    desk.add_items(5)
    page.goto(f"{desk.address}/#/review/quality")
    ready(page)
    page.evaluate("window.kept = true")
    page.goto(f"{desk.address}/icon.svg")
    page.go_back(wait_until="commit")  # a page that was kept loads nothing
    assert page.evaluate("window.kept"), "the page came from the network, not from the back/forward cache"
    for _ in range(2):
        ready(page)
        page.keyboard.press("r")
    desk.wait_for_decisions(2)
    ready(page)
    expect(page.get_by_text("no longer yours")).to_have_count(0)
    expect(page.get_by_text("did not count")).to_have_count(0)


def test_the_next_person_at_a_browser_gets_no_image_of_the_one_before(desk: RunningDesk, sign_in: SignIn) -> None:
    desk.add_items(1)
    desk.add_person("ben")
    page = sign_in("ana")
    ready(page)
    address = page.locator(".frame img").get_attribute("src")
    assert page.evaluate("(address) => fetch(address).then(({ status }) => status)", address) == 200
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_label("Password")).to_be_visible()
    assert page.evaluate("(address) => fetch(address).then(({ status }) => status)", address) == 401
    enter_password(page, "ben")
    page.wait_for_selector("#bar:not([hidden])")
    for cache in ("default", "force-cache"):
        ask = "([address, cache]) => fetch(address, { cache }).then(({ status }) => status)"
        assert page.evaluate(ask, [address, cache]) == 403


def test_a_late_answer_to_an_earlier_search_does_not_replace_the_newer_one(desk: RunningDesk, sign_in: SignIn) -> None:
    desk.add_items(3)
    page = sign_in("lea", Role.LEAD)
    page.goto(f"{desk.address}/#/search")
    expect(page.locator(".tile")).to_have_count(3)
    late: list[Route] = []
    page.route("**/v1/items?*number+1*", lambda route: late.append(route))
    words = page.get_by_label("Words")
    words.fill("number 1")
    page.keyboard.press("Enter")
    words.fill("number 2")
    page.keyboard.press("Enter")
    expect(page.locator(".tile")).to_have_count(1)
    for route in late:
        route.fulfill(json={"items": [], "cursor": None})
    page.wait_for_timeout(300)
    expect(page.locator(".tile")).to_contain_text("number 2")


def test_a_person_chooses_other_keys_which_are_kept_and_shown(desk: RunningDesk, sign_in: SignIn) -> None:
    desk.add_items(3)
    page = sign_in()
    ready(page)
    page.keyboard.press("?")
    sheet = page.get_by_role("dialog", name="Keyboard")
    sheet.get_by_role("button", name="Reject: R.").click()
    page.keyboard.press("a")
    expect(sheet.get_by_role("status")).to_have_text("A is the key for “Approve”.")
    sheet.get_by_role("button", name="Reject: R.").click()
    page.keyboard.press("j")
    expect(sheet.get_by_role("button", name="Reject: J.")).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.get_by_role("button", name="Reject", exact=True).locator("kbd")).to_have_text("J")
    page.reload()
    ready(page)
    page.keyboard.press("r")
    page.keyboard.press("j")
    assert [made.outcome for made in desk.wait_for_decisions(1)] == ["reject"]
    page.keyboard.press("?")
    sheet.get_by_role("button", name="Standard keys").click()
    page.keyboard.press("Escape")
    ready(page)
    page.keyboard.press("r")
    desk.wait_for_decisions(2)


def test_the_wheel_enlarges_the_image_where_the_pointer_is(desk: RunningDesk, sign_in: SignIn) -> None:
    desk.add_items(1)
    page = sign_in()
    ready(page)
    image = page.locator(".frame img")
    before = image.bounding_box()
    assert before is not None
    page.mouse.move(before["x"] + before["width"] / 2, before["y"] + before["height"] / 2)
    page.mouse.wheel(0, -800)
    page.wait_for_function("() => document.querySelector('.frame.zoomed img')?.getBoundingClientRect().width > 1200")
    page.mouse.wheel(0, 9000)
    expect(page.locator(".frame.zoomed")).to_have_count(0)
    assert image.bounding_box() == before
