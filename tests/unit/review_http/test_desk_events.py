"""Live events over a real connection: who hears what, and that streams end when the desk does."""

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from stand_in_desk import NOW, StandInDesk

from worker.review.answers import DeskEvent, Status
from worker.review.http import events
from worker.review.http.app import build_app
from worker.review.http.app_context import AppContext
from worker.review.http.roles import Role
from worker.review.http.server import DeskServer, listen


@pytest.fixture
def served(make_context: Callable[..., AppContext], tmp_path: Path) -> Iterator[tuple[AppContext, DeskServer, str]]:
    listener = listen("127.0.0.1", 0)
    address = f"http://127.0.0.1:{listener.getsockname()[1]}"
    context = make_context(origin=address)
    server = DeskServer(build_app(context), listener)
    yield context, server, address
    server.close()


def hear(context: AppContext, address: str, role: Role, ready: threading.Event, heard: list[dict[str, str]]) -> None:
    """Listens until the stream ends."""
    token, _ = context.sessions.open(role.value, role, "local")
    with httpx.stream("GET", f"{address}/v1/events", cookies={context.session_cookie: token}, timeout=20) as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        for line in stream.iter_lines():
            if line.startswith(": listening"):
                ready.set()
            if line.startswith("data: "):
                heard.append(json.loads(line.removeprefix("data: ")))


@pytest.fixture
def heard(served: tuple[AppContext, DeskServer, str]) -> Iterator[dict[Role, list[dict[str, str]]]]:
    """What a reviewer and a lead hear, who both listen by now; both streams must end with the desk."""
    context, server, address = served
    heard: dict[Role, list[dict[str, str]]] = {Role.REVIEWER: [], Role.LEAD: []}
    threads = []
    for role, list_of_role in heard.items():
        ready = threading.Event()
        threads.append(threading.Thread(target=hear, args=(context, address, role, ready, list_of_role), daemon=True))
        threads[-1].start()
        assert ready.wait(30)
    yield heard
    server.close()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive(), "the stream outlived the desk"


def wait_until(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not happened():
        assert time.monotonic() < deadline, "it did not happen within a minute"
        time.sleep(0.02)


def test_a_reviewer_hears_that_something_happened_and_a_lead_hears_what(
    heard: dict[Role, list[dict[str, str]]], desk: StandInDesk
) -> None:
    desk.happened.append(DeskEvent("approve", NOW, "quality", "item-0", "ben", Status.APPROVED))
    wait_until(lambda: all(heard.values()))
    some = {"kind": "approve", "queue": "quality", "at": NOW.isoformat()}
    assert heard[Role.REVIEWER] == [some]
    assert heard[Role.LEAD] == [{**some, "item_id": "item-0", "actor": "ben", "status": "approved"}]


def test_of_many_things_at_once_a_lead_hears_each_and_a_reviewer_that_there_were_some(
    heard: dict[Role, list[dict[str, str]]], desk: StandInDesk
) -> None:
    desk.happened += [DeskEvent("approve", NOW, "quality", f"item-{number}", "ben") for number in range(12)]
    wait_until(lambda: len(heard[Role.LEAD]) == 12 and bool(heard[Role.REVIEWER]))
    assert [each["item_id"] for each in heard[Role.LEAD]] == [f"item-{number}" for number in range(12)]
    assert 1 <= len(heard[Role.REVIEWER]) <= 12
    assert {each["kind"] for each in heard[Role.REVIEWER]} == {"approve"}


def test_who_is_signed_out_hears_no_more_however_much_happens(
    served: tuple[AppContext, DeskServer, str],
    heard: dict[Role, list[dict[str, str]]],
    desk: StandInDesk,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    context, _, address = served
    monkeypatch.setattr(events, "LOOK_SECONDS", 0.2)
    token, session = context.sessions.open("cleo", Role.LEAD, "local")
    with httpx.stream("GET", f"{address}/v1/events", cookies={context.session_cookie: token}, timeout=60) as stream:
        context.sessions.close(session)
        for line in stream.iter_lines():  # ends, or the time limit of the test ends it
            if line:
                desk.happened.append(DeskEvent("approve", NOW, "quality", "item-0", "ben"))
    before = len(heard[Role.LEAD])
    desk.happened.append(DeskEvent("reject", NOW, "quality", "item-1", "ben"))
    wait_until(lambda: len(heard[Role.LEAD]) > before)  # others still hear


def test_nobody_can_open_streams_without_end(served: tuple[AppContext, DeskServer, str]) -> None:
    context, _, address = served
    token, _ = context.sessions.open("ana", Role.REVIEWER, "local")
    with httpx.Client(
        cookies={context.session_cookie: token}, timeout=10, limits=httpx.Limits(max_connections=50)
    ) as web:
        streams = [web.send(web.build_request("GET", f"{address}/v1/events"), stream=True) for _ in range(13)]
        assert [stream.status_code for stream in streams] == [200] * 12 + [429]
        for stream in streams:
            stream.close()


@pytest.mark.parametrize("begin", ["GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n", "GET /healthz?"])
def test_a_request_without_end_is_cut_off_before_it_fills_the_memory(
    served: tuple[AppContext, DeskServer, str], begin: str
) -> None:
    address = urlsplit(served[2])
    with socket.create_connection((address.hostname, address.port), timeout=30) as connection:
        connection.sendall(begin.encode())
        if not begin.endswith("?"):
            connection.sendall(b"x-long: ")
        with pytest.raises(OSError, match=r"reset|[Bb]roken pipe"):
            connection.sendall(b"y" * 64_000_000)
    with socket.create_connection((address.hostname, address.port), timeout=30) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        assert connection.recv(64).startswith(b"HTTP/1.1 200")


def test_a_request_that_does_not_come_whole_is_cut_and_others_are_answered(
    served: tuple[AppContext, DeskServer, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.review.http.server.REQUEST_SECONDS", 0.5)
    address = urlsplit(served[2])
    with (
        socket.create_connection((address.hostname, address.port), timeout=30) as head,
        socket.create_connection((address.hostname, address.port), timeout=30) as body,
    ):
        head.sendall(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n")
        body.sendall(b"POST /v1/sign-in HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100\r\n\r\n{")
        for connection in (head, body):
            with suppress(ConnectionResetError):
                assert connection.recv(64) == b""
    assert httpx.get(f"{served[2]}/healthz", timeout=30).status_code == 200


def test_of_many_unfinished_requests_the_oldest_make_room(
    served: tuple[AppContext, DeskServer, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.review.http.server.MAX_UNFINISHED", 8)
    address = urlsplit(served[2])
    with ExitStack() as opened:
        connections = []
        for _ in range(20):
            connection = socket.create_connection((address.hostname, address.port), timeout=30)
            connections.append(opened.enter_context(connection))
            connection.sendall(b"GET /healthz HTTP/1.1\r\n")
        with suppress(ConnectionResetError):
            assert connections[0].recv(64) == b""
        assert httpx.get(f"{served[2]}/healthz", timeout=30).status_code == 200
