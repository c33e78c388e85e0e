"""Live events over a real connection: who hears what, and that streams end when the desk does."""

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from stand_in_desk import NOW, StandInDesk

from worker.review.answers import DeskEvent, Status
from worker.review.http.app import build_app
from worker.review.http.door import Door
from worker.review.http.roles import Role
from worker.review.http.server import DeskServer, listen


@pytest.fixture
def served(make_door: Callable[..., Door], tmp_path: Path) -> Iterator[tuple[Door, DeskServer, str]]:
    listener = listen("127.0.0.1", 0)
    address = f"http://127.0.0.1:{listener.getsockname()[1]}"
    door = make_door(origin=address)
    server = DeskServer(build_app(door), listener)
    yield door, server, address
    server.close()


def hear(door: Door, address: str, role: Role, ready: threading.Event, heard: list[dict[str, str]]) -> None:
    """Listens until the stream ends."""
    token, _ = door.sessions.open(role.value, role, "local")
    with httpx.stream("GET", f"{address}/v1/events", cookies={door.session_cookie: token}, timeout=20) as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        for line in stream.iter_lines():
            if line.startswith(": listening"):
                ready.set()
            if line.startswith("data: "):
                heard.append(json.loads(line.removeprefix("data: ")))


def test_a_reviewer_hears_that_something_happened_and_a_lead_hears_what(
    served: tuple[Door, DeskServer, str], desk: StandInDesk
) -> None:
    door, server, address = served
    heard: dict[Role, list[dict[str, str]]] = {Role.REVIEWER: [], Role.LEAD: []}
    threads = []
    for role, list_of_role in heard.items():
        ready = threading.Event()
        thread = threading.Thread(target=hear, args=(door, address, role, ready, list_of_role))
        thread.start()
        threads.append(thread)
        assert ready.wait(10)
    desk.happened.append(DeskEvent("approve", NOW, "quality", "item-0", "ben", Status.APPROVED))
    deadline = threading.Event()
    while not all(heard.values()) and not deadline.wait(0.05):
        pass
    server.close()
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive(), "the stream outlived the desk"
    assert heard[Role.REVIEWER] == [{"kind": "approve", "queue": "quality", "at": NOW.isoformat()}]
    assert heard[Role.LEAD] == [
        {
            "kind": "approve",
            "queue": "quality",
            "at": NOW.isoformat(),
            "item_id": "item-0",
            "actor": "ben",
            "status": "approved",
        }
    ]


def test_of_many_things_at_once_a_lead_hears_each_and_a_reviewer_that_there_were_some(
    served: tuple[Door, DeskServer, str], desk: StandInDesk
) -> None:
    door, server, address = served
    heard: dict[Role, list[dict[str, str]]] = {Role.REVIEWER: [], Role.LEAD: []}
    threads = []
    for role, list_of_role in heard.items():
        ready = threading.Event()
        threads.append(threading.Thread(target=hear, args=(door, address, role, ready, list_of_role)))
        threads[-1].start()
        assert ready.wait(10)
    desk.happened += [DeskEvent("approve", NOW, "quality", f"item-{number}", "ben") for number in range(12)]
    tick = threading.Event()
    while len(heard[Role.LEAD]) < 12 or not heard[Role.REVIEWER]:
        tick.wait(0.05)
    server.close()
    for thread in threads:
        thread.join(10)
    assert [each["item_id"] for each in heard[Role.LEAD]] == [f"item-{number}" for number in range(12)]
    assert 1 <= len(heard[Role.REVIEWER]) <= 12
    assert {each["kind"] for each in heard[Role.REVIEWER]} == {"approve"}


def test_nobody_can_open_streams_without_end(served: tuple[Door, DeskServer, str]) -> None:
    door, _, address = served
    token, _ = door.sessions.open("ana", Role.REVIEWER, "local")
    with httpx.Client(cookies={door.session_cookie: token}, timeout=10, limits=httpx.Limits(max_connections=50)) as web:
        streams = [web.send(web.build_request("GET", f"{address}/v1/events"), stream=True) for _ in range(13)]
        assert [stream.status_code for stream in streams] == [200] * 12 + [429]
        for stream in streams:
            stream.close()
