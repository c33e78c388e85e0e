"""Reviewing by keyboard: deciding, undoing, looking, and never two people at one image."""

import re
import sys
from collections.abc import Callable
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, Route, expect

sys.path.insert(0, str(Path(__file__).parent))

from running_desk import RunningDesk, ready, shown_prompt

from schemas import Provenance

SignIn = Callable[..., Page]

LOADED_AHEAD = """
() => performance.getEntriesByType("resource")
  .filter((entry) => entry.name.includes("/v1/images/") && entry.responseEnd > 0).length
"""
DECIDE_AND_LOOK = """
() => {
  const before = document.querySelector(".frame img");
  document.dispatchEvent(new KeyboardEvent("keydown", { key: "a", bubbles: true }));
  const now = document.querySelector(".frame img");
  return now !== before && now.complete && now.naturalWidth > 0;
}
"""

NATURAL_SIZE = """
() => { const image = document.querySelector(".frame img"); return [image.naturalWidth, image.naturalHeight] }
"""
DRAWN_WIDTH = """
() => {
  const image = document.querySelector(".frame img");
  return [image.naturalWidth, image.getBoundingClientRect().width * devicePixelRatio];
}
"""
MIDDLE_OF_CANVAS = """
() => {
  const canvas = document.querySelector("canvas");
  return [...canvas.getContext("2d").getImageData(canvas.width / 2, canvas.height / 2, 1, 1).data];
}
"""
RENDITIONS_ASKED_FOR = """
() => performance.getEntriesByType("resource").filter((entry) => entry.name.includes("/v1/images/"))
  .map((entry) => entry.name.split("/").pop())
"""


def test_keys_decide_and_the_log_has_what_was_decided(desk: RunningDesk, sign_in: SignIn) -> None:
    desk.add_items(3)
    page = sign_in()
    first = shown_prompt(page)
    page.keyboard.press("1")
    page.keyboard.press("n")
    page.keyboard.type("six fingers, a key")
    page.keyboard.press("Escape")
    page.keyboard.press("r")
    expect(page.locator(".prompt")).not_to_have_text(first)
    page.keyboard.press("a")
    rejected, approved = desk.wait_for_decisions(2)
    assert (rejected.outcome, rejected.resolution, rejected.reviewer) == ("reject", "reject", "ana")
    assert (rejected.labels, rejected.note) == (("artefacts",), "six fingers, a key")
    assert first.endswith(rejected.event_id.removeprefix("event-"))
    assert (approved.outcome, approved.labels, approved.note) == ("approve", (), None)
    assert rejected.seconds_spent is not None


def test_what_the_file_says_of_its_origin_is_shown_as_text(desk: RunningDesk, sign_in: SignIn) -> None:
    hostile = "<img src=x onerror=alert(1)>"
    said = Provenance(
        found=True, c2pa="valid", c2pa_generator="Imaginator 3", c2pa_signer=hostile, generator="comfyui",
        model=hostile, steps=20, seed="18446744073709551615",
    )  # fmt: skip
    desk.add_items(1, provenance=said)
    desk.add_items(1, provenance=Provenance())
    page = sign_in()
    section = page.locator("section", has=page.get_by_role("heading", name="What the file says"))
    expect(section.locator("dd")).to_have_text(
        ["verifies, unknown signer", "Imaginator 3", hostile, "ComfyUI", hostile, "20", "18446744073709551615"]
    )
    expect(section).to_contain_text("Anyone can write this into a file")
    assert section.locator("img").count() == 0
    ready(page)
    page.keyboard.press("a")
    expect(section).to_have_count(0)


def test_the_next_image_is_shown_before_the_key_is_handled(desk: RunningDesk, sign_in: SignIn) -> None:
    desk.add_items(4)
    page = sign_in()
    page.wait_for_function(f"() => ({LOADED_AHEAD})() >= 4")
    page.wait_for_function("() => document.querySelector('.frame img').naturalWidth > 0")
    page.route("**/v1/images/**", lambda route: route.abort())  # what is not loaded ahead never comes
    for _ in range(3):
        assert page.evaluate(DECIDE_AND_LOOK)
    desk.wait_for_decisions(3)


def test_a_key_shows_where_the_model_sees_damage_and_takes_it_away_again(desk: RunningDesk, sign_in: SignIn) -> None:
    desk.add_items(2)
    page = sign_in()
    page.wait_for_selector(".frame img")
    page.keyboard.press("h")
    expect(page.locator(".frame").get_by_text("By occlusion: red where hiding a spot")).to_be_visible(timeout=120_000)
    expect(page.locator(".frame")).to_contain_text("Made by another model")  # the items name a made-up one
    page.wait_for_function("() => document.querySelector('.frame img').naturalWidth > 0")
    expect(page.get_by_role("button", name="Heat")).to_have_attribute("aria-pressed", "true")
    page.keyboard.press("h")
    expect(page.locator(".frame .veil")).to_have_count(0)
    page.keyboard.press("h")
    expect(page.locator(".frame .veil")).to_be_visible()
    page.keyboard.press("a")  # the next image is shown as it is
    expect(page.locator(".frame .veil")).to_have_count(0)
    page.keyboard.press("b")
    page.keyboard.press("h")
    expect(page.get_by_text("The image is blurred: its heat map would show it")).to_be_visible()
    assert page.locator(".frame .veil").count() == 0


def test_an_empty_queue_says_so_and_fills_by_itself(desk: RunningDesk, sign_in: SignIn) -> None:
    desk.add_items(1)
    page = sign_in()
    page.wait_for_selector(".frame img")
    page.keyboard.press("a")
    expect(page.get_by_role("heading", name="All clear")).to_be_visible()
    desk.add_items(1)
    expect(page.locator(".prompt")).to_have_text("a fox in the snow, number 1")


def test_two_reviewers_never_get_the_same_item(desk: RunningDesk, sign_in: SignIn) -> None:
    items = desk.add_items(12)
    pages = [sign_in("ana"), sign_in("ben")]
    seen: list[list[str]] = [[], []]
    for _ in range(len(items)):
        for page, prompts in zip(pages, seen, strict=True):
            if page.locator(".prompt").count():
                prompts.append(shown_prompt(page))
                page.keyboard.press("a")
                page.wait_for_timeout(60)
    decisions = desk.wait_for_decisions(len(items))
    assert sorted(decision.item_id for decision in decisions) == sorted(items)
    assert not set(seen[0]) & set(seen[1])
    assert all(prompts for prompts in seen)


def test_what_somebody_leaves_behind_others_get_after_its_lease(
    make_desk: Callable[..., RunningDesk], sign_in: SignIn
) -> None:
    desk = make_desk(lease_seconds=2.0)
    desk.add_items(1)
    ana = sign_in("ana", to=desk)
    prompt = shown_prompt(ana)
    ana.context.set_offline(True)  # no heartbeat any more
    ben = sign_in("ben", to=desk)
    expect(ben.locator(".prompt")).to_have_text(prompt)
    ben.keyboard.press("r")
    desk.wait_for_decisions(1)
    ana.keyboard.press("a")  # kept, for the connection is lost
    ana.context.set_offline(False)
    expect(ana.get_by_text("did not count")).to_be_visible()
    (decision,) = desk.decisions()
    assert (decision.reviewer, decision.outcome) == ("ben", "reject")


def test_a_lease_that_ran_out_before_the_eyes_is_told(make_desk: Callable[..., RunningDesk], sign_in: SignIn) -> None:
    desk = make_desk(lease_seconds=2.0)
    desk.add_items(1)
    ana = sign_in("ana", to=desk)
    ana.wait_for_selector(".frame img")
    ana.context.set_offline(True)
    ben = sign_in("ben", to=desk)
    ben.wait_for_selector(".frame img")
    ana.context.set_offline(False)
    expect(ana.get_by_text("no longer yours")).to_be_visible()
    expect(ana.get_by_text("1 image is with other reviewers")).to_be_visible()


def reject_with_a_reason(desk: RunningDesk, page: Page) -> str:
    """Rejects the image that is shown, for its anatomy, and returns its prompt once that counts."""
    prompt = shown_prompt(page)
    page.keyboard.press("2")
    page.keyboard.press("r")
    desk.wait_for_decisions(1)
    return prompt


def test_undo_brings_the_image_back_with_what_was_said_of_it(desk: RunningDesk, sign_in: SignIn) -> None:
    desk.add_items(3)
    page = sign_in()
    first = reject_with_a_reason(desk, page)
    page.keyboard.press("u")
    expect(page.locator(".prompt")).to_have_text(first)
    expect(page.get_by_role("button", name="anatomy")).to_have_attribute("aria-pressed", "true")
    page.keyboard.press("a")
    rejected, undone, approved = desk.wait_for_decisions(3)
    assert (undone.outcome, undone.undoes) == ("reopen", rejected.decision_id)
    assert (approved.item_id, approved.outcome) == (rejected.item_id, "approve")


def lose_answers(page: Page, pattern: str, times: int) -> list[str]:
    """The desk does what it is asked, and nobody hears of it, so many times; which requests that was so far."""
    lost: list[str] = []

    def lose(route: Route) -> None:
        if len(lost) == times:
            route.continue_()
        else:
            route.fetch()
            lost.append(route.request.url)
            route.abort()

    page.route(pattern, lose)
    return lost


def test_an_undo_whose_answer_was_lost_is_sent_again_and_counts_once(desk: RunningDesk, sign_in: SignIn) -> None:
    desk.add_items(3)
    page = sign_in()
    first = reject_with_a_reason(desk, page)
    lose_answers(page, "**/undo", 2)
    page.keyboard.press("u")
    expect(page.get_by_text("It will be undone when the desk answers")).to_be_visible()
    second = shown_prompt(page)
    assert second != first
    expect(page.get_by_text("That image comes next")).to_be_visible()
    assert shown_prompt(page) == second  # a key pressed now decides about what is looked at
    expect(page.get_by_text("when the desk answers")).to_have_count(0)
    expect(page.locator(".pace")).to_have_text("0decided")
    assert [decision.outcome for decision in desk.wait_for_decisions(2)] == ["reject", "reopen"]
    page.keyboard.press("a")
    expect(page.locator(".prompt")).to_have_text(first)
    expect(page.get_by_role("button", name="anatomy")).to_have_attribute("aria-pressed", "true")
    page.wait_for_function("() => document.querySelector('.frame img').complete")
    page.keyboard.press("a")
    assert [decision.outcome for decision in desk.wait_for_decisions(4)][2:] == ["approve", "approve"]


def test_a_decision_whose_answer_was_lost_is_taken_back_at_the_desk_too(desk: RunningDesk, sign_in: SignIn) -> None:
    desk.add_items(2)
    page = sign_in()
    shown_prompt(page)
    lost = lose_answers(page, "**/v1/decisions", 2)
    page.keyboard.press("r")
    while not lost:
        page.wait_for_timeout(20)
    page.wait_for_timeout(300)  # it waits to be sent again, and could be withdrawn if nobody had heard of it
    page.keyboard.press("u")
    expect(page.get_by_text(re.compile("^Taken back"))).to_be_visible()
    assert [decision.outcome for decision in desk.wait_for_decisions(2)] == ["reject", "reopen"]
    assert page.get_by_text("did not count").count() == 0


def test_an_undo_that_comes_too_late_is_told(make_desk: Callable[..., RunningDesk], sign_in: SignIn) -> None:
    desk = make_desk(undo_seconds=2.0)
    desk.add_items(2)
    page = sign_in(to=desk)
    shown_prompt(page)
    page.keyboard.press("r")
    desk.wait_for_decisions(1)
    page.context.set_offline(True)
    page.keyboard.press("u")
    expect(page.get_by_text("when the desk answers")).to_be_visible()
    page.wait_for_timeout(2500)
    page.context.set_offline(False)
    expect(page.get_by_text("Your decision stands")).to_be_visible()
    assert len(desk.decisions()) == 1


def test_there_is_nothing_to_undo_after_its_seconds(make_desk: Callable[..., RunningDesk], sign_in: SignIn) -> None:
    desk = make_desk(undo_seconds=1.0)
    desk.add_items(2)
    page = sign_in(to=desk)
    page.wait_for_selector(".frame img")
    page.keyboard.press("r")
    page.wait_for_timeout(1300)
    page.keyboard.press("u")
    expect(page.get_by_text("nothing to undo")).to_be_visible()
    assert len(desk.decisions()) == 1


def test_a_held_key_decides_once(desk: RunningDesk, sign_in: SignIn) -> None:
    desk.add_items(4)
    page = sign_in()
    page.wait_for_selector(".frame img")
    page.keyboard.down("r")
    for _ in range(5):
        page.keyboard.down("r")
    page.keyboard.up("r")
    page.wait_for_timeout(500)
    assert len(desk.wait_for_decisions(1)) == 1


def test_skipping_leaves_the_item_to_others(desk: RunningDesk, sign_in: SignIn) -> None:
    desk.add_items(1)
    ana = sign_in("ana")
    prompt = shown_prompt(ana)
    ana.keyboard.press("s")
    expect(ana.get_by_role("heading", name="Nothing for you now")).to_be_visible()
    ben = sign_in("ben")
    expect(ben.locator(".prompt")).to_have_text(prompt)


def test_blurred_means_that_the_image_itself_is_never_sent(desk: RunningDesk, sign_in: SignIn) -> None:
    desk.add_items(4)
    page = sign_in()
    page.wait_for_selector(".frame img")
    page.keyboard.press("b")
    expect(page.get_by_role("button", name="Blur", exact=True)).to_have_attribute("aria-pressed", "true")
    sizes: list[tuple[int, int]] = []
    page.reload()
    page.wait_for_selector(".frame img")
    for _ in range(3):
        page.wait_for_timeout(300)
        size = page.evaluate(NATURAL_SIZE)
        sizes.append(tuple(size))
        page.keyboard.press("a")
    assert all(max(size) <= 400 for size in sizes), sizes
    page.goto(f"{desk.address}/#/search")
    page.locator(".tile").first.click()
    page.wait_for_selector(".shot img")
    page.goto(f"{desk.address}/#/grid/quality")
    page.wait_for_selector(".tile img")
    kinds = page.evaluate(RENDITIONS_ASKED_FOR)
    assert kinds
    assert set(kinds) == {"blurred"}


def test_an_animation_is_played_and_its_worst_frame_marked(desk: RunningDesk, sign_in: SignIn, tmp_path: Path) -> None:
    frames = [Image.new("RGB", (160, 90), (20 * number, 60, 200)) for number in range(12)]
    frames[4].paste((255, 255, 0), (40, 20, 120, 70))
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:], duration=60)
    desk.add_items(2, image=tmp_path / "moving.gif", worst_of=(4, 12))
    page = sign_in()
    ready(page)
    expect(page.locator(".tools .size")).to_contain_text("worst frame 5 of 12")
    page.keyboard.press("m")
    which, ticks = page.locator(".film .which"), page.locator(".ticks button")
    expect(ticks).to_have_count(12)
    for shown in ("frame 11 of 12", "frame 2 of 12", "worst frame 5 of 12"):  # it plays, and again from the start
        expect(which).to_have_text(shown)
    page.keyboard.press("m")
    expect(page.get_by_role("button", name="Play", exact=True)).to_have_attribute("aria-pressed", "false")
    paused = which.inner_text()
    page.wait_for_timeout(200)
    assert which.inner_text() == paused
    expect(page.locator(".ticks .worst")).to_have_accessible_name("Frame 5 of 12, the worst")
    page.locator(".ticks .worst").click()
    expect(which).to_have_text("worst frame 5 of 12")
    red, green, blue, _ = page.evaluate(MIDDLE_OF_CANVAS)
    assert min(red, green) > 230
    assert blue < 40
    page.keyboard.press("m")  # it plays: the next one does so by itself
    page.keyboard.press("a")
    expect(page.locator(".ticks button")).to_have_count(12)
    page.emulate_media(reduced_motion="reduce")
    page.reload()
    ready(page)
    page.keyboard.press("b")
    page.keyboard.press("m")
    expect(page.get_by_text("The image is blurred: its frames would show it")).to_be_visible()


def test_native_pixels_are_the_image_s_own(desk: RunningDesk, sign_in: SignIn) -> None:
    desk.add_items(1)
    page = sign_in()
    page.wait_for_selector(".frame img")
    page.keyboard.press("z")
    page.wait_for_selector(".frame.native img")
    page.wait_for_function("() => document.querySelector('.frame.native img').style.width")
    natural, drawn = page.evaluate(DRAWN_WIDTH)
    assert natural == drawn


def test_an_image_that_cannot_be_had_is_named_and_can_be_decided(
    desk: RunningDesk, sign_in: SignIn, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"\xff\xd8\xff\xe0 cut off")
    desk.add_items(1, image=broken)
    page = sign_in()
    expect(page.get_by_text("The file is broken")).to_be_visible()
    page.keyboard.press("r")
    assert desk.wait_for_decisions(1)[0].outcome == "reject"
