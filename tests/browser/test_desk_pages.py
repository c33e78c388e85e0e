"""The other pages: signing in, the grid, roles, a lost connection, policy, and what holds on every page."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, Route, expect

sys.path.insert(0, str(Path(__file__).parent))

from running_desk import PASSWORD, RunningDesk, enter_password, shown_prompt

from worker.policy.loading import DEFAULT
from worker.review.http.roles import Role

SignIn = Callable[..., Page]


def test_the_first_link_makes_an_admin_and_leaves_the_address_bar(
    desk: RunningDesk, open_page: Callable[..., Page]
) -> None:
    page = open_page()
    assert desk.served.first_link is not None
    page.goto(desk.served.first_link)
    expect(page.get_by_text("You are invited as admin")).to_be_visible()
    assert "invitation" not in page.url
    enter_password(page, "ana")
    expect(page.get_by_role("link", name="People")).to_be_visible()
    other = open_page()
    other.goto(desk.served.first_link)
    expect(other.get_by_text("used or is too old")).to_be_visible()


def test_a_wrong_password_is_told_and_the_right_one_lets_in(desk: RunningDesk, open_page: Callable[..., Page]) -> None:
    desk.add_person("ana")
    page = open_page()
    page.goto(desk.address)
    enter_password(page, "ana", "wrong wrong wrong")
    expect(page.get_by_role("alert")).to_have_text("no user has this name and password")
    enter_password(page, "ana")
    expect(page.get_by_text("Nothing has come yet")).to_be_visible()


def test_signing_out_leads_back_to_the_door(desk: RunningDesk, sign_in: SignIn) -> None:
    page = sign_in()
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("heading", name="Review desk")).to_be_visible()
    page.reload()
    expect(page.get_by_role("heading", name="Review desk")).to_be_visible()


@pytest.mark.parametrize(
    ("role", "places"),
    [
        (Role.VIEWER, ["Queues", "Search"]),
        (Role.REVIEWER, ["Review", "Grid", "My decisions", "Queues", "Search"]),
        (Role.LEAD, ["Review", "Grid", "My decisions", "Queues", "Search", "Dashboard", "Policy", "Dead letters"]),
        (
            Role.ADMIN,
            ["Review", "Grid", "My decisions", "Queues", "Search", "Dashboard", "Policy", "Dead letters", "People"],
        ),
    ],
)
def test_a_role_sees_its_places_and_no_others(
    desk: RunningDesk, sign_in: SignIn, role: Role, places: list[str]
) -> None:
    desk.add_items(1)
    page = sign_in("ana", role)
    assert page.locator("nav a").all_inner_texts() == places
    page.goto(f"{desk.address}/#/people")
    if role is Role.ADMIN:
        expect(page.get_by_role("heading", name="People")).to_be_visible()
    else:
        page.wait_for_timeout(300)
        assert page.get_by_role("heading", name="People").count() == 0


def test_a_view_that_loads_slowly_does_not_take_the_page_from_the_one_chosen_after_it(
    desk: RunningDesk, sign_in: SignIn
) -> None:
    desk.add_items(1)
    page = sign_in("ana", Role.REVIEWER)
    page.goto(f"{desk.address}/#/queues")
    expect(page.get_by_role("heading", name="Queues")).to_be_visible()
    held: list[Route] = []
    page.route("**/v1/queues/quality/leases", lambda route: held.append(route))
    with page.expect_request("**/v1/queues/quality/leases"):
        page.goto(f"{desk.address}/#/review/quality")
    page.goto(f"{desk.address}/#/search")
    expect(page.get_by_role("heading", name="Search")).to_be_visible()
    with page.expect_response("**/v1/leases/release"):
        held[0].continue_()
    expect(page.get_by_role("heading", name="Search")).to_be_visible()
    assert page.get_by_role("button", name="Approve").count() == 0


LOADED = """
(count) =>
    [...document.querySelectorAll(".tile img")].filter((image) => image.complete && image.naturalWidth).length === count
"""


def grid_of(count: int, desk: RunningDesk, sign_in: SignIn) -> Page:
    """The grid view of a queue that holds so many items."""
    desk.add_items(count)
    page = sign_in()
    page.goto(f"{desk.address}/#/grid/quality")
    expect(page.locator(".tile")).to_have_count(count)
    page.wait_for_function(LOADED, arg=count)  # before that they cannot be decided about
    return page


def test_many_are_decided_at_once_and_taken_back(desk: RunningDesk, sign_in: SignIn) -> None:
    page = grid_of(6, desk, sign_in)
    page.keyboard.press(" ")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    page.keyboard.press(" ")
    expect(page.locator(".tile[aria-selected=true]")).to_have_count(2)
    chosen = page.locator(".tile[aria-selected=true]").evaluate_all("(tiles) => tiles.map((tile) => tile.dataset.item)")
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog").locator(".shot img")).to_be_visible()
    page.keyboard.press("Escape")
    page.keyboard.press("1")
    page.keyboard.press("r")
    expect(page.get_by_text("Rejected 2 images").first).to_be_visible()
    expect(page.locator(".tile")).to_have_count(4)
    decisions = desk.wait_for_decisions(2)
    assert sorted(decision.item_id for decision in decisions) == sorted(chosen)
    assert {(decision.outcome, decision.labels) for decision in decisions} == {("reject", ("artefacts",))}
    page.keyboard.press("u")
    expect(page.get_by_text("Taken back: rejected 2 images")).to_be_visible()
    expect(page.locator(".tile")).to_have_count(6)
    page.wait_for_function(LOADED, arg=6)
    page.keyboard.press("c")
    page.keyboard.press("a")
    expect(page.get_by_role("heading", name="All clear")).to_be_visible()
    assert len(desk.wait_for_decisions(10)) == 10


def test_many_whose_answer_was_lost_are_sent_again_and_count_once(desk: RunningDesk, sign_in: SignIn) -> None:
    page = grid_of(2, desk, sign_in)

    def lose_the_answer(route: Route) -> None:
        route.fetch()
        route.abort()

    page.route("**/v1/decisions/bulk", lose_the_answer, times=1)
    page.keyboard.press("c")
    page.keyboard.press("r")
    expect(page.get_by_text("Rejected 2 images")).to_be_visible()
    page.wait_for_function("() => sessionStorage.getItem('sluice.outbox.ana') === '[]'")
    assert len(desk.wait_for_decisions(2)) == 2
    assert page.get_by_text("did not count").count() == 0


def test_many_that_are_taken_back_while_the_desk_is_away_come_back_when_it_answers(
    desk: RunningDesk, sign_in: SignIn
) -> None:
    page = grid_of(3, desk, sign_in)
    page.keyboard.press("c")
    page.keyboard.press("r")
    desk.wait_for_decisions(3)
    expect(page.get_by_text("Rejected 3 images").first).to_be_visible()
    page.context.set_offline(True)
    page.keyboard.press("u")
    expect(page.get_by_text("3 decisions will be taken back as soon as the desk answers")).to_be_visible()
    page.context.set_offline(False)
    expect(page.locator(".tile")).to_have_count(3)
    outcomes = [decision.outcome for decision in desk.wait_for_decisions(6)]
    assert (outcomes.count("reject"), outcomes.count("reopen")) == (3, 3)


def test_what_was_assigned_to_somebody_who_is_removed_is_everybody_s_again(desk: RunningDesk, sign_in: SignIn) -> None:
    desk.add_items(1)
    desk.add_person("ben")
    page = sign_in("ada", Role.ADMIN)
    page.goto(f"{desk.address}/#/search")
    page.locator(".tile").click()
    page.get_by_role("button", name="Assign").click()
    page.get_by_label("Name").fill("ben")
    page.keyboard.press("Enter")
    desk.wait_for_decisions(1)
    expect(page.get_by_text("The item is assigned to ben")).to_be_visible()
    page.go_back()
    expect(page.locator(".tile")).to_be_focused()  # the search goes on where it was left
    page.goto(f"{desk.address}/#/people")
    page.get_by_role("button", name="Remove ben").click()
    page.get_by_role("button", name="Remove", exact=True).click()
    expect(page.get_by_text("ben was removed")).to_be_visible()
    ana = sign_in("ana")
    expect(ana.locator(".frame img")).to_be_visible()
    assigned, back = desk.wait_for_decisions(2)
    assert (assigned.assignee, back.outcome, back.assignee, back.reviewer) == ("ben", "assign", None, "ada")


def test_a_role_is_changed_by_keyboard_and_none_that_is_passed_on_the_way(desk: RunningDesk, sign_in: SignIn) -> None:
    desk.add_person("ben")
    page = sign_in("ada", Role.ADMIN)
    page.goto(f"{desk.address}/#/people")
    role = page.get_by_label("Role of ben", exact=True)
    changes: list[str] = []
    page.on("request", lambda request: changes.append(str(request.post_data)) if request.method == "PATCH" else None)
    role.focus()
    for key in ("ArrowUp", "ArrowDown", "ArrowDown"):
        page.keyboard.press(key)
    expect(role).to_have_value("lead")
    page.keyboard.press("Tab")
    expect(page.get_by_role("button", name="Change the role of ben")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_text("ben is a lead now")).to_be_visible()
    expect(role).to_be_focused()
    assert changes == ['{"role":"lead"}']


def test_who_presses_the_button_of_a_message_goes_on_at_the_work(desk: RunningDesk, sign_in: SignIn) -> None:
    desk.add_items(2)
    page = sign_in()
    expect(page.locator(".frame:not(.loading) img")).to_be_visible()
    page.keyboard.press("r")
    page.get_by_role("button", name="Undo").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_text("Taken back: rejected")).to_be_visible()
    expect(page.locator("main")).to_be_focused()


def test_shift_and_an_arrow_choose_a_row_of_images(desk: RunningDesk, sign_in: SignIn) -> None:
    page = grid_of(4, desk, sign_in)
    page.keyboard.press("Shift+ArrowRight")
    page.keyboard.press("Shift+ArrowRight")
    expect(page.locator(".tile[aria-selected=true]")).to_have_count(3)


def test_a_lost_connection_is_told_and_what_was_decided_is_sent_when_it_is_back(
    desk: RunningDesk, sign_in: SignIn
) -> None:
    desk.add_items(4)
    page = sign_in()
    page.wait_for_selector(".frame img")
    page.wait_for_timeout(800)
    page.context.set_offline(True)
    page.keyboard.press("a")
    page.keyboard.press("r")
    expect(page.get_by_text("The connection to the desk is lost")).to_be_visible()
    expect(page.locator(".pace")).to_contain_text("2to be sent")
    expect(page.locator(".frame img")).to_be_visible()  # fetched ahead
    assert desk.decisions() == []
    page.context.set_offline(False)
    decisions = desk.wait_for_decisions(2)
    assert [decision.outcome for decision in decisions] == ["approve", "reject"]
    expect(page.get_by_text("Connected again")).to_be_visible()
    expect(page.locator("#connection")).to_be_hidden()


def test_what_could_not_be_sent_survives_a_reload(desk: RunningDesk, sign_in: SignIn) -> None:
    desk.add_items(2)
    page = sign_in()
    page.wait_for_selector(".frame img")
    page.route("**/v1/decisions", lambda route: route.abort())
    page.keyboard.press("r")
    expect(page.get_by_text("The connection to the desk is lost")).to_be_visible()
    page.unroute("**/v1/decisions")
    page.reload()
    assert desk.wait_for_decisions(1)[0].outcome == "reject"


def test_a_queue_that_cannot_be_asked_is_not_called_clear(desk: RunningDesk, sign_in: SignIn) -> None:
    desk.add_items(1)
    page = sign_in()
    page.wait_for_selector(".frame img")
    page.context.set_offline(True)
    page.keyboard.press("a")
    expect(page.get_by_role("heading", name="The images could not be loaded")).to_be_visible()
    page.context.set_offline(False)
    expect(page.get_by_role("heading", name="All clear")).to_be_visible()
    desk.wait_for_decisions(1)


def test_what_one_person_decided_is_not_sent_as_the_next_one_at_the_tab(desk: RunningDesk, sign_in: SignIn) -> None:
    desk.add_items(2)
    desk.add_person("ben")
    page = sign_in("ana")
    page.wait_for_selector(".frame img")
    page.route("**/v1/decisions", lambda route: route.abort())
    page.keyboard.press("r")
    expect(page.get_by_text("The connection to the desk is lost")).to_be_visible()
    page.context.clear_cookies()
    page.unroute("**/v1/decisions")
    expect(page.get_by_text("Your session is over. Sign in to go on: what you decided is kept.")).to_be_visible()
    enter_password(page, "ben")
    expect(page.get_by_text("2 images are with other reviewers")).to_be_visible()  # both are still leased to ana
    assert desk.decisions() == []
    page.get_by_role("button", name="Sign out").click()
    enter_password(page, "ana")
    assert desk.wait_for_decisions(1)[0].reviewer == "ana"


def test_a_lead_sees_what_a_threshold_would_have_done(desk: RunningDesk, sign_in: SignIn) -> None:
    desk.add_verdicts([2.7, 2.8, 4.1])
    page = sign_in("lea", Role.LEAD)
    page.goto(f"{desk.address}/#/policy")
    expect(page.get_by_role("heading", name="The current policy, replayed")).to_be_visible()
    slider = page.get_by_role("slider", name="borderline")
    slider.focus()
    for _ in range(5):
        page.keyboard.press("ArrowRight")
    expect(page.get_by_role("heading", name="2 images of 3 would have been routed differently")).to_be_visible()
    expect(page.locator(".examples img")).to_have_count(2)
    expect(page.get_by_label("Policy, YAML")).to_have_value(re.compile(r"borderline: 2\.85 "))
    page.get_by_label("Policy, YAML").fill("schema: sluice.policy/1\nversion: x\nrules: []\n")
    expect(page.get_by_role("heading", name="This policy cannot be used")).to_be_visible()


def test_a_policy_saved_on_the_page_is_in_the_file_and_two_leads_do_not_overwrite_each_other(
    desk: RunningDesk, sign_in: SignIn
) -> None:
    desk.add_verdicts([2.7, 4.1])
    lea, ben = sign_in("lea", Role.LEAD), sign_in("ben", Role.LEAD)
    for page, threshold in ((lea, "3"), (ben, "3.2")):
        page.goto(f"{desk.address}/#/policy")
        expect(page.get_by_role("button", name="Save …")).to_be_disabled()  # nothing is changed yet
        page.get_by_role("slider", name="borderline").fill(threshold)
        expect(page.get_by_role("heading", name="1 image of 2 would have been routed differently")).to_be_visible()
        page.get_by_role("button", name="Save …").click()
    lea.get_by_role("dialog").get_by_role("button", name="Save").click()
    expect(lea.get_by_text("saved by lea")).to_be_visible()
    saved = (desk.folder / "policy.yaml").read_text()
    assert "borderline: 3.0 " in saved
    ben.get_by_role("dialog").get_by_role("button", name="Save").click()
    expect(ben.get_by_text("Lea saved another policy since you loaded yours")).to_be_visible()
    assert (desk.folder / "policy.yaml").read_text() == saved
    ben.get_by_role("button", name="Load the saved one").click()
    expect(ben.get_by_text("saved by lea")).to_be_visible()


def test_what_shadow_policies_would_have_done_is_shown_with_examples_and_opens_in_the_editor(
    make_desk: Callable[..., RunningDesk], sign_in: SignIn, tmp_path: Path
) -> None:
    shadow = tmp_path / "stricter.yaml"
    shadow.write_text(DEFAULT.read_text().replace("borderline: 2.6", "borderline: 3.1"))
    desk = make_desk(shadow_policies={"stricter": shadow})
    desk.add_verdicts([2.7, 2.9, 4.1], shadow=("stricter", {2.7, 2.9}))
    page = sign_in("lea", Role.LEAD, to=desk)
    page.goto(f"{desk.address}/#/policy")
    panel = page.get_by_role("region", name="Shadow policy stricter")
    expect(panel.get_by_text("Evaluated for 3 verdicts: 2 images would have been routed differently")).to_be_visible()
    expect(panel.locator(".examples img")).to_have_count(2)
    panel.get_by_role("button", name="Open in the editor").click()
    expect(page.get_by_label("Policy, YAML")).to_have_value(re.compile(r"borderline: 3\.1 "))
    expect(page.get_by_role("heading", name="2 images of 3 would have been routed differently")).to_be_visible()


def test_the_dashboard_tells_what_came_to_the_gate_and_how_far_it_is_behind(desk: RunningDesk, sign_in: SignIn) -> None:
    desk.add_items(2)
    desk.add_events(5)
    page = sign_in("lea", Role.LEAD)
    page.goto(f"{desk.address}/#/dashboard")
    expect(page.locator(".numbers li", has_text="Behind the stream")).to_contain_text("5")
    expect(page.locator(".numbers li", has_text="Sent to review")).to_contain_text("2")
    expect(page.get_by_role("img", name=re.compile("Events that came each hour: .* 5 in all"))).to_be_visible()


def test_an_invitation_made_on_the_page_lets_somebody_in(
    desk: RunningDesk, sign_in: SignIn, open_page: Callable[..., Page]
) -> None:
    admin = sign_in("ada", Role.ADMIN)
    admin.goto(f"{desk.address}/#/people")
    admin.get_by_label("Role of who is invited").select_option("viewer")
    admin.get_by_role("button", name="Make an invitation").click()
    link = admin.get_by_label("Invitation link").input_value()
    page = open_page()
    page.goto(link)
    enter_password(page, "vic")
    expect(page.get_by_role("heading", name="Queues")).to_be_visible()


def test_the_sheet_names_the_keys_of_the_page(desk: RunningDesk, sign_in: SignIn) -> None:
    desk.add_items(1)
    page = sign_in()
    page.wait_for_selector(".frame img")
    page.keyboard.press("?")
    sheet = page.get_by_role("dialog", name="Keyboard")
    expect(sheet).to_contain_text("Escalate to a lead")
    page.keyboard.press("a")  # the sheet is open: nothing is decided behind it
    page.keyboard.press("Escape")
    expect(sheet).to_have_count(0)
    assert desk.decisions() == []


def test_letters_can_be_switched_off_for_those_who_dictate(desk: RunningDesk, sign_in: SignIn) -> None:
    desk.add_items(2)
    page = sign_in()
    page.wait_for_selector(".frame img")
    page.keyboard.press("?")
    page.get_by_label("Letter and digit keys are shortcuts").uncheck()
    page.keyboard.press("Escape")
    page.reload()
    prompt = shown_prompt(page)
    page.keyboard.press("a")
    page.keyboard.press("b")
    expect(page.get_by_role("button", name="Blur", exact=True)).to_have_attribute("aria-pressed", "false")
    assert shown_prompt(page) == prompt
    page.get_by_role("button", name="Keyboard").click()
    page.get_by_label("Letter and digit keys are shortcuts").check()
    page.keyboard.press("Escape")
    page.keyboard.press("a")
    desk.wait_for_decisions(1)


UNNAMED = """
() => [...document.querySelectorAll("button, a, input, select, textarea, img, [role=img], [role=option]")]
  .filter((e) => e.checkVisibility() && !e.closest("[aria-hidden=true]"))
  .filter((e) => !(e.tagName === "IMG" ? e.hasAttribute("alt")
    : e.getAttribute("aria-label") || e.getAttribute("aria-labelledby") || e.innerText?.trim() || e.labels?.length))
  .map((e) => e.outerHTML.slice(0, 120))
"""


def axe_violations(page: Page) -> list[str]:
    """What axe finds wrong with the page as it is: the rule, and the first element that breaks it."""
    found = Axe().run(page).response["violations"]
    return [f"{each['id']}: {each['nodes'][0]['html'][:160]}" for each in found]


@pytest.mark.parametrize(("theme", "width"), [("light", 1024), ("dark", 390)])
def test_every_page_loads_from_the_desk_alone_fits_and_names_what_it_shows(
    desk: RunningDesk, open_page: Callable[..., Page], theme: str, width: int
) -> None:
    desk.add_items(3)
    desk.add_verdicts([2.7, 4.1], shadow=("stricter", {2.7}))
    desk.add_person("ada", Role.ADMIN)
    page = open_page(color_scheme=theme, reduced_motion="reduce", viewport={"width": width, "height": 800})
    asked: set[str] = set()
    page.on("request", lambda request: asked.add(urlsplit(request.url).netloc))
    page.goto(desk.address)
    enter_password(page, "ada")
    for place in ("review", "grid", "mine", "queues", "search", "dashboard", "policy", "dead", "people"):
        page.goto(f"{desk.address}/#/{place}")
        page.wait_for_selector(f"nav a[href='#/{place}'][aria-current=page]")
        page.wait_for_timeout(400)
        assert page.evaluate(UNNAMED) == [], place
        assert page.evaluate("() => document.documentElement.scrollWidth <= innerWidth"), place
        assert page.evaluate("() => document.querySelector('main').scrollWidth <= innerWidth"), place
        expect(page.get_by_role("button", name="Sign out")).to_be_in_viewport(ratio=1)
        assert axe_violations(page) == [], place
    page.goto(f"{desk.address}/#/item/item-000")
    expect(page.locator(".shot img")).to_be_visible()
    assert axe_violations(page) == []
    assert page.evaluate("() => document.querySelector('main').scrollWidth <= innerWidth")
    page.keyboard.press("?")
    assert axe_violations(page) == []
    assert page.evaluate("() => document.documentElement.dataset.theme") == theme
    assert asked == {urlsplit(desk.address).netloc}


IN_FOCUS = """
() => {
  const element = document.activeElement;
  const name = element === document.body ? "BODY" : element.innerText || element.ariaLabel || element.tagName;
  return [name, getComputedStyle(element).outlineStyle];
}
"""


def test_everything_can_be_reached_by_tab_and_focus_is_seen(desk: RunningDesk, sign_in: SignIn) -> None:
    desk.add_items(1)
    page = sign_in()
    page.wait_for_selector(".frame img")
    seen = set()
    for _ in range(40):
        page.keyboard.press("Tab")
        name, outline = page.evaluate(IN_FOCUS)
        seen.add(name.split("\n")[0].strip())
        if name != "BODY":
            assert outline != "none", name
    assert {"Skip to the work", "Review", "Approve", "Reject", "Skip", "Blur"} <= seen


def test_sluice_up_serves_the_desk_and_prints_the_first_link(tmp_path: Path, open_page: Callable[..., Page]) -> None:
    log = tmp_path / "up.log"
    command = [sys.executable, "-m", "worker.cli.main", "up", "--embedded", "--desk", "--data", str(tmp_path / "data")]
    code = "from worker.cli.main import app; app()"
    command[1:3] = ["-c", code]
    with log.open("w") as out:
        up = subprocess.Popen(command, stderr=out, stdout=out, env=os.environ | {"SLUICE_WEB__PORT": "0"})
    try:
        deadline = time.monotonic() + 60
        while not (found := re.search(r"http://\S+#invitation=\S+", log.read_text())) and time.monotonic() < deadline:
            assert up.poll() is None, log.read_text()
            time.sleep(0.1)
        assert found is not None, log.read_text()
        page = open_page()
        page.goto(found[0])
        enter_password(page, "ana", PASSWORD)
        expect(page.get_by_text("Nothing has come yet")).to_be_visible()
        up.send_signal(signal.SIGTERM)
        assert up.wait(30) == 0
        expect(page.get_by_text("The connection to the desk is lost")).to_be_visible()
    finally:
        up.kill()
        up.wait()
    assert PASSWORD not in log.read_text()
