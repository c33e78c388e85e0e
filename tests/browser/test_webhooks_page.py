"""The page of webhooks: a lead sees what a receiver did not take, and has it sent again when the receiver is well."""

import json
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
from playwright.sync_api import Page, expect

sys.path.insert(0, str(Path(__file__).parent))

from running_desk import RunningDesk

from worker.review.http.roles import Role


class Receiver(BaseHTTPRequestHandler):
    is_well = False
    event_ids: ClassVar[list[str]] = []

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if Receiver.is_well:
            Receiver.event_ids += [verdict["event_id"] for verdict in body["verdicts"]]
        self.send_response(200 if Receiver.is_well else 410)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def receiver() -> Iterator[int]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield server.server_port
    server.shutdown()
    server.server_close()


@pytest.fixture
def desk(make_desk: Callable[..., RunningDesk], receiver: int) -> RunningDesk:
    url = f"http://127.0.0.1:{receiver}/"
    hook = {"url": url, "secret": "s" * 16, "sends": "verdicts", "actions": ["pass"], "allowed_hosts": ["127.0.0.1"]}
    return make_desk(webhooks={"shop": hook})


def test_what_a_receiver_did_not_take_is_shown_and_sent_again(desk: RunningDesk, sign_in: Callable[..., Page]) -> None:
    page = sign_in("lea", Role.LEAD)
    page.get_by_role("link", name="Webhooks").click()
    panel = page.get_by_role("region", name="shop", exact=True)
    expect(panel.get_by_text("all delivered")).to_be_visible()

    desk.add_verdicts([4.0, 4.1])
    expect(panel.get_by_text("1 not delivered")).to_be_visible()
    expect(panel.get_by_role("row").nth(1)).to_contain_text("the receiver answered 410")
    expect(panel.get_by_role("row").nth(1)).to_contain_text("2 records")

    Receiver.is_well = True
    panel.get_by_role("button", name="Send all again").click()
    page.get_by_role("dialog").get_by_role("button", name="Send again").click()
    expect(panel.get_by_text("all delivered")).to_be_visible()
    assert sorted(Receiver.event_ids) == ["past-0", "past-1"]
