"""What happens at the desk, live, as server-sent events: one reader of the desk, many listeners."""

import asyncio
import json
import threading
from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

import redis
import structlog
from anyio import to_thread
from fastapi import APIRouter, Request
from fastapi.responses import StreamingResponse

from worker.intake.log import LogError
from worker.review.answers import DeskEvent
from worker.review.errors import DeskError
from worker.review.face import DeskFace
from worker.review.http.door import Door, SignedIn, TheDoor
from worker.review.http.problems import Problem
from worker.review.http.roles import Role
from worker.review.http.sessions import Session

log = structlog.get_logger(__name__)
router = APIRouter(tags=["events"])

QUIET_SECONDS: Final = 10.0
"""After so long without an event a comment keeps proxies from closing the stream, and the session is looked at."""
WAITING: Final = 200
"""Events that may wait for a slow listener; it is then told to look for itself."""
STREAMS_A_USER: Final = 12
AGAIN_SECONDS: Final = 1.0
TOGETHER_SECONDS: Final = 0.25
"""What happens within so long is sent at once: where fifty people decide, each page would else be woken for each."""


@dataclass(frozen=True, slots=True)
class Told:
    """An event as it is sent, written once for all who listen: `some` for those who vote, `all` for the others."""

    some: str
    all: str


class Broadcast:
    """Reads the desk's events on a thread of its own and hands them to every listener."""

    def __init__(self, desk: DeskFace) -> None:
        self._desk = desk
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._listeners: dict[asyncio.Queue[Told | None], asyncio.AbstractEventLoop] = {}
        self._of_user: Counter[str] = Counter()
        self._thread = threading.Thread(target=self._read, name="desk-events", daemon=True)
        self._thread.start()

    def listen(self, user: str) -> asyncio.Queue[Told | None]:
        """A queue that gets what happens from now on; None in it ends the stream."""
        with self._lock:
            if self._of_user[user] >= STREAMS_A_USER:
                raise Problem(
                    HTTPStatus.TOO_MANY_REQUESTS, "too-many-streams", f"at most {STREAMS_A_USER} pages may be open"
                )
            self._of_user[user] += 1
            queue: asyncio.Queue[Told | None] = asyncio.Queue(WAITING)
            self._listeners[queue] = asyncio.get_running_loop()
            return queue

    def leave(self, user: str, queue: asyncio.Queue[Told | None]) -> None:
        with self._lock:
            self._listeners.pop(queue, None)
            self._of_user[user] -= 1

    def close(self) -> None:
        """Ends every stream."""
        self._stop.set()
        self._tell(None)
        self._thread.join(5)

    def _read(self) -> None:
        while not self._stop.is_set():
            try:
                for event in self._desk.events(self._stop):
                    if event is not None:
                        self._tell(event)
            except (redis.RedisError, LogError, DeskError) as error:
                log.warning("desk_events_interrupted", error=f"{type(error).__name__}: {error}")
                self._stop.wait(AGAIN_SECONDS)

    def _tell(self, event: DeskEvent | None) -> None:
        told = None if event is None else _written(event)
        by_loop: dict[asyncio.AbstractEventLoop, list[asyncio.Queue[Told | None]]] = defaultdict(list)
        with self._lock:
            for queue, loop in self._listeners.items():
                by_loop[loop].append(queue)
        for loop, queues in by_loop.items():
            if not loop.is_closed():
                loop.call_soon_threadsafe(_put, queues, told)


def _put(queues: list[asyncio.Queue[Told | None]], told: Told | None) -> None:
    for queue in queues:
        if queue.full():  # too slow: what it missed it sees when it next looks at the queues
            queue.get_nowait()
        queue.put_nowait(told)


@router.get("/v1/events", response_class=StreamingResponse)
async def events(request: Request, session: SignedIn, door: TheDoor) -> StreamingResponse:
    """Events named `desk`: `{kind, queue, at}`; leads and viewers also get `item_id`, `actor` and `status`, which could
    sway those who vote."""
    broadcast: Broadcast = request.app.state.broadcast
    queue = broadcast.listen(session.user)
    stream = _stream(door, session, broadcast, queue)
    return StreamingResponse(stream, media_type="text/event-stream", headers={"X-Accel-Buffering": "no"})


async def _stream(
    door: Door, session: Session, broadcast: Broadcast, queue: asyncio.Queue[Told | None]
) -> AsyncIterator[str]:
    try:
        yield "retry: 1000\n: listening\n\n"
        while True:
            try:
                event = await asyncio.wait_for(queue.get(), QUIET_SECONDS)
            except TimeoutError:
                if not await to_thread.run_sync(door.sessions.is_open, session):
                    return
                yield ": quiet\n\n"
                continue
            together = [event]
            if event is not None:
                await asyncio.sleep(TOGETHER_SECONDS)
                while not queue.empty():
                    together.append(queue.get_nowait())
            blind = session.role is Role.REVIEWER
            texts = dict.fromkeys(told.some if blind else told.all for told in together if told is not None)
            if texts:
                yield "".join(texts)
            if None in together:
                return
    finally:
        broadcast.leave(session.user, queue)


def _written(event: DeskEvent) -> Told:
    some = {"kind": event.kind, "queue": event.queue, "at": event.at.isoformat(timespec="seconds")}
    status = event.status.value if event.status is not None else ""
    more = {"item_id": event.item_id, "actor": event.actor or "", "status": status}
    return Told(*(f"event: desk\ndata: {json.dumps(data)}\n\n" for data in (some, some | more)))
