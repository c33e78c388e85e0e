"""The real page in Chromium, on the real desk: embedded log, index, signed links, sessions; nothing stands in."""

import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

sys.path.insert(0, str(Path(__file__).parent))

from running_desk import PATIENCE_MS, RunningDesk, enter_password

from worker.cache.client import connect_embedded
from worker.review.http.roles import Role
from worker.review.http.serving import serve_desk
from worker.review.running import open_desk
from worker.samples.sample import SAMPLE_IMAGES
from worker.settings import FileSettings, ReviewSettings, Settings, WebSettings
from worker.wiring import open_embedded_topics

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker("browser")


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """Ends with its module: while Playwright's loop is there, no other test of the run could use asyncio.run."""
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        pytest.fail("no chromium on the PATH; ops/dev/prerequisites.sh names what to install")
    expect.set_options(timeout=PATIENCE_MS)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, headless=True, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def make_desk(tmp_path: Path) -> Iterator[Callable[..., RunningDesk]]:
    """Starts a desk; keyword arguments are settings of the review."""
    with ExitStack() as stack:

        def make(port: int = 0, shadow_policies: Mapping[str, Path] | None = None, **review: object) -> RunningDesk:
            settings = Settings(
                shadow_policies=dict(shadow_policies or {}),
                files=FileSettings(roots=(SAMPLE_IMAGES, tmp_path)),
                review=ReviewSettings(**({"audit_share": 0.0} | review)),  # type: ignore[arg-type]
                web=WebSettings(port=port),
            )
            stop = stack.enter_context(ExitStack())
            client = connect_embedded()
            stop.callback(client.close)
            open_embedded_topics(settings, tmp_path).close()
            desk = stop.enter_context(closing(open_desk(settings, tmp_path, client)))
            served = stop.enter_context(closing(serve_desk(settings, tmp_path, desk, client, tmp_path)))
            return RunningDesk(tmp_path, settings, served, stop, client)

        yield make


@pytest.fixture
def desk(make_desk: Callable[..., RunningDesk]) -> RunningDesk:
    return make_desk()


@pytest.fixture
def open_page(chromium: Browser) -> Iterator[Callable[..., Page]]:
    """A page in a profile of its own. What it says on its console is an error of the test, but for refused requests."""
    with ExitStack() as stack:
        complaints: list[str] = []

        def make(**options: object) -> Page:
            context = chromium.new_context(**({"viewport": {"width": 1280, "height": 800}} | options))  # type: ignore[arg-type]
            stack.callback(context.close)
            context.set_default_timeout(PATIENCE_MS)
            page = context.new_page()
            page.on("pageerror", lambda error: complaints.append(str(error)))
            page.on(
                "console",
                lambda message: (
                    complaints.append(message.text)
                    if message.type == "error" and "Failed to load resource" not in message.text
                    else None
                ),
            )
            return page

        yield make
        assert complaints == []


@pytest.fixture
def sign_in(desk: RunningDesk, open_page: Callable[..., Page]) -> Callable[..., Page]:
    """A page on the desk, signed in as a new person of this name and role."""

    def enter(name: str = "ana", role: Role = Role.REVIEWER, to: RunningDesk | None = None) -> Page:
        there = to or desk
        there.add_person(name, role)
        page = open_page()
        page.goto(there.address)
        enter_password(page, name)
        page.wait_for_selector("#bar:not([hidden])")
        return page

    return enter
