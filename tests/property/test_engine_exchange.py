"""However engines are exchanged and asked for: none is closed in use or twice, and the current one always answers."""

from contextlib import AbstractContextManager

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule

from worker.apps.hosted import Hosted
from worker.apps.serve_engine import ModelNotServed
from worker.scoring.engine import Engine, Features, Prompts, Views

DIGESTS = st.sampled_from(["sha256:a", "sha256:b", "sha256:c"])
LINGER_SECONDS = 60.0
BLANK = {"whole": np.zeros((1, 2, 2, 3), np.uint8)}


class FakeEngine:
    max_batch = 8

    def __init__(self) -> None:
        self.is_closed = False

    def infer(self, views: Views, prompts: Prompts | None = None) -> Features:
        assert not self.is_closed
        return {}

    def close(self) -> None:
        assert not self.is_closed, "closed twice"
        self.is_closed = True


class Exchange(RuleBasedStateMachine):
    calls = Bundle("calls")

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.hosted = Hosted(linger_seconds=LINGER_SECONDS, clock=lambda: self.now)
        self.engines: list[FakeEngine] = []
        self.in_use: list[Engine] = []
        self.current: tuple[str, FakeEngine] | None = None
        self.asked_at: dict[str, float] = {}

    @rule(digest=DIGESTS)
    def change(self, digest: str) -> None:
        engine = FakeEngine()
        self.engines.append(engine)
        if self.current is not None:
            self.asked_at[self.current[0]] = self.now
        self.hosted.put(digest, engine, BLANK)
        self.current = (digest, engine)
        self.asked_at[digest] = self.now

    @rule(target=calls, digest=DIGESTS)
    def begin(self, digest: str) -> object:
        call = self.hosted.use(digest)
        try:
            engine = call.__enter__()
        except ModelNotServed:
            is_current = self.current is not None and self.current[0] == digest
            assert not is_current
            assert self.now - self.asked_at.get(digest, -LINGER_SECONDS) >= LINGER_SECONDS, "refused while it lingers"
            return multiple()
        self.in_use.append(engine)
        return call, engine, digest

    @rule(begun=consumes(calls))
    def end(self, begun: tuple[AbstractContextManager[Engine], Engine, str]) -> None:
        call, engine, digest = begun
        engine.infer(BLANK)
        call.__exit__(None, None, None)
        self.in_use.remove(engine)
        self.asked_at[digest] = self.now

    @rule(seconds=st.sampled_from([1.0, LINGER_SECONDS / 2, LINGER_SECONDS]))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.hosted.close_idle()

    @invariant()
    def none_is_closed_in_use(self) -> None:
        for engine in self.in_use:
            engine.infer(BLANK)

    @invariant()
    def the_current_one_answers(self) -> None:
        if self.current is not None:
            with self.hosted.use(self.current[0]) as engine:
                assert engine is self.current[1]
            self.asked_at[self.current[0]] = self.now
            self.hosted.try_current()

    def teardown(self) -> None:
        self.hosted.close()
        assert {id(e) for e in self.engines if not e.is_closed} == {id(e) for e in self.in_use}


Exchange.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestExchange = Exchange.TestCase
