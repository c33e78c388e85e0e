"""Takes the pictures of docs/desk: the demo's stream, judged by the shipped model, on a real embedded desk. Each view
is taken in light and dark, and those that people use away from their desk also on a phone.

.venv/bin/python -m ops.dev.desk_screenshots docs/desk
"""

import io
import sys
import tempfile
import time
import uuid
from contextlib import closing
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

from schemas import Vote
from worker.cache.client import connect_embedded
from worker.demo.run import run_demo
from worker.policy.loading import DEFAULT
from worker.review.answers import Choice
from worker.review.desk import Desk
from worker.review.errors import NotReady
from worker.review.http.accounts import PEOPLE_FILE, Accounts
from worker.review.http.roles import Role
from worker.review.http.serving import serve_desk
from worker.review.running import open_desk
from worker.samples.sample import SAMPLE_IMAGES
from worker.settings import FileSettings, QueueSettings, ReviewSettings, Settings, WebSettings

CHROMIUM = "/usr/bin/chromium"
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
SIZE = {"width": 1440, "height": 900}
PHONE = {"width": 390, "height": 844}
PASSWORD = "correct horse battery"
HEAT_MS = 120_000
VOTERS = ("ana", "ben", "chidi")


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="sluice-desk-") as name:
        data = Path(name)
        shadow = data / "stricter.yaml"
        shadow.write_text(DEFAULT.read_text().replace("borderline: 2.6", "borderline: 3.0"))
        settings = Settings(
            shadow_policies={"stricter": shadow},
            files=FileSettings(roots=(SAMPLE_IMAGES, data.resolve() / "images")),
            review=ReviewSettings(
                audit_share=0.3, duplicate_cosine=1.0, queues={"quality": QueueSettings(agree=2, votes=3)}
            ),
            web=WebSettings(port=0),
        )
        run_demo(settings, data, lambda _what, _done, _total: None)
        client = connect_embedded()
        with closing(open_desk(settings, data, client)) as desk:
            _judge_some(desk)
            with closing(serve_desk(settings, data, desk, client, data)) as served:
                with closing(Accounts(data / PEOPLE_FILE, time.time)) as accounts:
                    accounts.accept(accounts.invite(Role.ADMIN, "screenshots"), "mara", PASSWORD)
                _take_all(served.address, folder)


def _judge_some(desk: Desk) -> None:
    """Lets three people vote on what the demo sent to review, so that the numbers have something to show."""
    for queue in ("quality", "audit"):
        _wait_for_items(desk, queue)
        for turn, reviewer in enumerate(VOTERS):
            for lease in desk.lease(queue, reviewer, count=30):
                scores = lease.items[0].item.scores
                quality = scores.quality if scores is not None else 1.0
                # Each draws the line elsewhere, as people do.
                line = 2.9 if queue == "audit" else 2.2 + 0.25 * (turn - 1)
                outcome: Vote = "reject" if quality < line else "approve"
                choice = Choice(lease.item_id, lease.token, uuid.uuid4().hex, outcome, seconds_spent=2.1 + turn)
                desk.decide(choice, reviewer)


def _wait_for_items(desk: Desk, queue: str) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            desk.lease(queue, "nobody", count=0)  # raises NotReady while the index is being built
            if any(each.name == queue and each.open for each in desk.queues()):
                return
        except NotReady:
            pass
        time.sleep(0.1)
    raise TimeoutError(f"nothing came to the queue {queue}")


def _take_all(address: str, folder: Path) -> None:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, headless=True, args=FLAGS)
        for theme in ("light", "dark"):
            context = browser.new_context(viewport=SIZE, color_scheme=theme)  # type: ignore[arg-type]
            page = context.new_page()
            page.goto(address)
            page.get_by_label("Name").fill("mara")
            page.wait_for_timeout(300)
            _shoot(page, folder / f"sign-in-{theme}.jpg")
            page.get_by_label("Password").fill(PASSWORD)
            page.keyboard.press("Enter")
            _take(page, address, folder, theme)
            state = context.storage_state()
            context.close()
            phone = browser.new_context(
                viewport=PHONE,  # type: ignore[arg-type]
                color_scheme=theme,
                device_scale_factor=2,
                is_mobile=True,
                has_touch=True,
                storage_state=state,
            )
            _take_on_phone(phone.new_page(), address, folder, theme)
            phone.close()
        browser.close()


def _shoot(page: Page, path: Path) -> None:
    """As JPEG, a fifth of the bytes: the pictures lie in the repository."""
    with Image.open(io.BytesIO(page.screenshot())) as image:
        image.convert("RGB").save(path, quality=90, subsampling=0, optimize=True)


def _take(page: Page, address: str, folder: Path, theme: str) -> None:
    def shoot(name: str) -> None:
        page.wait_for_timeout(900)
        _shoot(page, folder / f"{name}-{theme}.jpg")

    page.wait_for_selector("#bar:not([hidden])")
    page.goto(f"{address}/#/review/quality")
    page.wait_for_selector(".frame img")
    page.wait_for_timeout(1200)
    page.keyboard.press("r")
    page.keyboard.press("1")
    shoot("review")
    page.keyboard.press("?")
    shoot("sheet")
    page.keyboard.press("Escape")
    page.keyboard.press("u")
    page.wait_for_timeout(500)
    page.keyboard.press("h")
    page.wait_for_selector(".frame .veil", timeout=HEAT_MS)
    shoot("heat-map")
    page.goto(f"{address}/#/grid/quality")
    page.wait_for_selector(".tile img")
    page.keyboard.press(" ")
    for key in ("ArrowRight", "ArrowRight", " ", "ArrowDown", " "):
        page.keyboard.press(key)
    shoot("grid")
    page.goto(f"{address}/#/search?queue=quality&oldest_first=true")
    page.wait_for_selector(".tile img")
    shoot("search")
    page.locator(".tile").nth(2).click()
    page.wait_for_selector(".shot img")
    shoot("item")
    for place in ("mine", "queues", "dashboard", "policy"):
        page.goto(f"{address}/#/{place}")
        page.wait_for_selector(f"nav a[href='#/{place}'][aria-current=page]")
        if place == "policy":
            page.get_by_role("slider", name="borderline").fill("2.8")
            page.wait_for_selector("[aria-label=Replay] .examples img")
        shoot(place)


def _take_on_phone(page: Page, address: str, folder: Path, theme: str) -> None:
    page.goto(f"{address}/#/review/quality")
    page.wait_for_selector(".frame:not(.loading) img")
    page.wait_for_timeout(900)
    _shoot(page, folder / f"phone-review-{theme}.jpg")
    for place, ready in (("grid/quality", ".tile img"), ("queues", ".queue"), ("dashboard", ".numbers li")):
        page.goto(f"{address}/#/{place}")
        page.wait_for_selector(ready)
        page.wait_for_timeout(900)
        _shoot(page, folder / f"phone-{place.split('/')[0]}-{theme}.jpg")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "docs/desk"))
