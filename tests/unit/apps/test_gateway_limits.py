import asyncio
from collections.abc import Callable, Iterable
from typing import TypeVar

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from starlette.requests import Request

from worker.apps.http.limits import Limits, Seat
from worker.review.http.problems import Problem
from worker.settings import GatewaySettings, ImageSettings

T = TypeVar("T")
CALLERS = st.sampled_from(["a", "b", "c"])
MOST, SHARE, BYTES = 5, 3, 1000


class AnyRequests(RuleBasedStateMachine):
    """Requests come, bring bodies and end in any order."""

    def __init__(self) -> None:
        super().__init__()
        bounds = GatewaySettings(max_requests=MOST, max_requests_a_caller=SHARE, max_bytes_in_flight=BYTES)
        self.limits = Limits(bounds, ImageSettings())
        self.seats: list[tuple[str, Seat, int]] = []

    @rule(caller=CALLERS)
    def come(self, caller: str) -> None:
        mine = sum(name == caller for name, *_ in self.seats)
        came = tried(lambda: self.limits.enter(caller))
        if isinstance(came, Seat):
            assert mine < SHARE
            self.seats.append((caller, came, 0))
        else:
            assert came.status == (429 if mine == SHARE else 503)
            assert mine == SHARE or len(self.seats) == MOST
            assert "Retry-After" in came.headers

    @rule(at=st.integers(0, MOST - 1), sizes=st.lists(st.integers(0, 600), max_size=3))
    def bring_a_body(self, at: int, sizes: list[int]) -> None:
        if at >= len(self.seats):
            return
        caller, seat, had = self.seats[at]
        free = BYTES - sum(held for *_, held in self.seats)
        taken = 0
        for size in sizes:
            if taken + size > free:
                break
            taken += size
        body = tried(lambda: asyncio.run(seat.read(request(b"x" * size for size in sizes))))
        if isinstance(body, Problem):
            assert body.status == 503
            assert sum(sizes) > free
        else:
            assert len(body) == sum(sizes) == taken
        self.seats[at] = (caller, seat, had + taken)

    @rule(at=st.integers(0, MOST - 1), times=st.integers(1, 2))
    def end(self, at: int, times: int) -> None:
        if at < len(self.seats):
            _, seat, _ = self.seats.pop(at)
            for _ in range(times):
                seat.leave()

    @invariant()
    def as_many_are_under_way_as_have_not_ended(self) -> None:
        assert self.limits.requests == len(self.seats) <= MOST

    def teardown(self) -> None:
        for _, seat, _ in self.seats:
            seat.leave()
        self.limits.take_bytes(BYTES)  # all of it is free again


TestAnyRequests = AnyRequests.TestCase
TestAnyRequests.settings = settings(max_examples=40, stateful_step_count=20, deadline=None)


def tried(act: Callable[[], T]) -> T | Problem:
    try:
        return act()
    except Problem as problem:
        return problem


def request(chunks: Iterable[bytes]) -> Request:
    messages = iter([*({"type": "http.request", "body": chunk, "more_body": True} for chunk in chunks)])

    async def receive() -> dict[str, object]:
        return next(messages, {"type": "http.request", "body": b"", "more_body": False})

    return Request({"type": "http", "method": "POST", "headers": []}, receive)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 40), max_size=6))
def test_a_body_is_read_whole_or_refused_at_its_limit(sizes: list[int]) -> None:
    limits = Limits(GatewaySettings(), ImageSettings())
    limits.max_body_bytes = 100
    seat = limits.enter("a")
    read = seat.read(request(b"x" * size for size in sizes))
    if sum(sizes) <= 100:
        assert len(asyncio.run(read)) == sum(sizes)
    else:
        refused = tried(lambda: asyncio.run(read))
        assert isinstance(refused, Problem)
        assert refused.status == 413
