"""A replica exchanges its engines while calls go on."""

from dataclasses import dataclass, field

import numpy as np
import pytest

from tests.unit.clock import Clock
from worker.apps.hosted import Hosted
from worker.apps.serve_engine import ModelNotServed
from worker.scoring.engine import EngineError, Features, Prompts, Views

BLANK = {"whole": np.zeros((1, 2, 2, 3), np.uint8)}


@dataclass
class FakeEngine:
    name: str
    max_batch: int = 8
    closed: bool = False
    fails: bool = False
    seen: list[Views] = field(default_factory=list)

    def infer(self, views: Views, prompts: Prompts | None = None) -> Features:
        assert not self.closed, f"{self.name} was used after it was closed"
        self.seen.append(views)
        if self.fails:
            raise EngineError("no")
        return {"coarse": np.zeros((1, 4), np.float32)}

    def close(self) -> None:
        assert not self.closed, f"{self.name} was closed twice"
        self.closed = True


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def hosted(clock: Clock) -> Hosted:
    return Hosted(linger_seconds=60.0, clock=clock)


def test_a_model_that_is_not_there_is_refused_with_what_is(hosted: Hosted) -> None:
    hosted.put("sha256:a", FakeEngine("a"), BLANK)

    with pytest.raises(ModelNotServed, match="serves sha256:a, not sha256:b"), hosted.use("sha256:b"):
        pass


def test_a_replaced_model_is_served_until_nobody_has_asked_for_it_for_a_while(hosted: Hosted, clock: Clock) -> None:
    old, new = FakeEngine("old"), FakeEngine("new")
    hosted.put("sha256:old", old, BLANK)
    clock.now = 1000.0
    hosted.put("sha256:new", new, BLANK)

    clock.now += 59.0
    hosted.close_idle()
    with hosted.use("sha256:old") as engine:
        assert engine is old
    clock.now += 59.0
    hosted.close_idle()
    assert not old.closed
    clock.now += 2.0
    hosted.close_idle()

    assert old.closed
    assert not new.closed
    with pytest.raises(ModelNotServed), hosted.use("sha256:old"):
        pass


def test_an_engine_is_closed_only_after_its_last_call(hosted: Hosted, clock: Clock) -> None:
    first, second = FakeEngine("first"), FakeEngine("second")
    hosted.put("sha256:a", first, BLANK)

    with hosted.use("sha256:a") as in_use:
        hosted.put("sha256:a", second, BLANK)  # the same model by another backend
        assert not first.closed
        in_use.infer(BLANK)
        with hosted.use("sha256:a") as later:
            assert later is second

    assert first.closed
    assert not second.closed


def test_the_current_model_stays_however_long_nobody_asks(hosted: Hosted, clock: Clock) -> None:
    engine = FakeEngine("a")
    hosted.put("sha256:a", engine, BLANK)
    clock.now = 1e6
    hosted.close_idle()

    hosted.try_current()

    assert engine.seen == [BLANK]


def test_a_sick_engine_fails_the_check(hosted: Hosted) -> None:
    with pytest.raises(ModelNotServed):
        hosted.try_current()
    hosted.put("sha256:a", FakeEngine("a", fails=True), BLANK)
    with pytest.raises(EngineError, match="no"):
        hosted.try_current()


def test_closing_ends_all_engines(hosted: Hosted) -> None:
    engines = [FakeEngine("a"), FakeEngine("b")]
    for engine in engines:
        hosted.put(f"sha256:{engine.name}", engine, BLANK)

    hosted.close()

    assert all(engine.closed for engine in engines)
