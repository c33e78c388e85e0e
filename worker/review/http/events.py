"""Live events of the desk as server-sent events: one reader, many listeners."""

import asyncio
import json
import threading
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

from anyio import to_thread
from fastapi import APIRouter, Request
from fastapi.responses import StreamingResponse

from worker.review.answers import DeskEvent
from worker.review.desk_api import DeskApi
from worker.review.http.app_context import AppContext, Context, SignedIn
from worker.review.http.problems import Problem
from worker.review.http.roles import Role
from worker.review.http.sessions import Session

router = APIRouter(tags=["events"])

LOOK_SECONDS: Final = 10.0
"""How often the session is checked, and a comment is sent so that proxies keep the stream open."""
WAITING: Final = 40
"""Queue size of a listener; a slower one misses events."""
STREAMS_A_USER: Final = 12


@dataclass(frozen=True, slots=True)
class EventText:
    """Events as they are sent, written once for all who listen: `some` for those who vote, `all` for the others."""

    some: str
    all: str


class Broadcast:
    """Hands the desk's events to every listener. `run` is a loop for a supervisor."""

    def __init__(self, desk: DeskApi) -> None:
        self._desk = desk
        self._lock = threading.Lock()
        self._listeners: dict[asyncio.Queue[EventText | None], asyncio.AbstractEventLoop] = {}
        self._of_user: Counter[str] = Counter()

    def listen(self, user: str) -> asyncio.Queue[EventText | None]:
        """A queue that gets what happens from now on; None in it ends the stream."""
        with self._lock:
            if self._of_user[user] >= STREAMS_A_USER:
                raise Problem(
                    HTTPStatus.TOO_MANY_REQUESTS, "too-many-streams", f"at most {STREAMS_A_USER} pages may be open"
                )
            self._of_user[user] += 1
            queue: asyncio.Queue[EventText | None] = asyncio.Queue(WAITING)
            self._listeners[queue] = asyncio.get_running_loop()
            return queue

    def leave(self, user: str, queue: asyncio.Queue[EventText | None]) -> None:
        with self._lock:
            self._listeners.pop(queue, None)
            self._of_user[user] -= 1

    def close(self) -> None:
        """Ends every stream."""
        self._tell(None)

    def run(self, stop: threading.Event) -> None:
        """Reads events until told to stop. Raises what the desk raises; may then be called again."""
        for events in self._desk.events(stop):
            if events:
                self._tell(_written(events))

    def _tell(self, told: EventText | None) -> None:
        by_loop: dict[asyncio.AbstractEventLoop, list[asyncio.Queue[EventText | None]]] = defaultdict(list)
        with self._lock:
            for queue, loop in self._listeners.items():
                by_loop[loop].append(queue)
        for loop, queues in by_loop.items():
            if not loop.is_closed():
                loop.call_soon_threadsafe(_put, queues, told)


def _put(queues: list[asyncio.Queue[EventText | None]], told: EventText | None) -> None:
    for queue in queues:
        if queue.full():  # too slow: what it missed it sees when it next looks at the queues
            queue.get_nowait()
        queue.put_nowait(told)


@router.get("/v1/events", response_class=StreamingResponse)
async def events(request: Request, session: SignedIn, context: Context) -> StreamingResponse:
    """Events named `desk`: `{kind, queue, at}`; leads and viewers also get `item_id`, `actor` and `status`, which could
    sway those who vote."""
    broadcast: Broadcast = request.app.state.broadcast
    queue = broadcast.listen(session.user)
    stream = _stream(context, session, broadcast, queue)
    return StreamingResponse(stream, media_type="text/event-stream", headers={"X-Accel-Buffering": "no"})


async def _stream(
    context: AppContext, session: Session, broadcast: Broadcast, queue: asyncio.Queue[EventText | None]
) -> AsyncIterator[str]:
    loop = asyncio.get_running_loop()
    look_at = loop.time() + LOOK_SECONDS
    try:
        yield "retry: 1000\n: listening\n\n"
        while True:
            if loop.time() >= look_at:
                if not await to_thread.run_sync(context.sessions.is_open, session):
                    return
                look_at = loop.time() + LOOK_SECONDS
                yield ": still here\n\n"
            try:
                async with asyncio.timeout_at(look_at):
                    told = await queue.get()
            except TimeoutError:
                continue
            if told is None:
                return
            yield told.some if session.role is Role.REVIEWER else told.all
    finally:
        broadcast.leave(session.user, queue)


def _written(events: Sequence[DeskEvent]) -> EventText:
    some: dict[str, None] = {}  # to those who hear no more than that something happened, once is enough
    every = []
    for event in events:
        less = {"kind": event.kind, "queue": event.queue, "at": event.at.isoformat(timespec="seconds")}
        status = event.status.value if event.status is not None else ""
        more = {"item_id": event.item_id, "actor": event.actor or "", "status": status}
        some[_message(less)] = None
        every.append(_message(less | more))
    return EventText("".join(some), "".join(every))


def _message(data: Mapping[str, str]) -> str:
    return f"event: desk\ndata: {json.dumps(data)}\n\n"
