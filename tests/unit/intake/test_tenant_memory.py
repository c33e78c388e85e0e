"""Several tenants are known as several, by all workers of a group and for a day."""

import pytest

from worker.cache.client import connect_embedded
from worker.intake.tenant_memory import EXCHANGE_SECONDS, KEPT, MEMORY_SECONDS, RedisTenants, TenantMemory, TenantStore


class Clock:
    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


class BrokenRedis:
    def pipeline(self, **_: object) -> object:
        raise ConnectionError("gone")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store() -> TenantStore:
    return RedisTenants(connect_embedded(), "group")


def memory(clock: Clock, store: TenantStore | None = None) -> TenantMemory:
    made = TenantMemory(store, clock=clock, wall_clock=clock)
    made.turn()
    return made


def test_one_tenant_is_one_however_often_it_sends(clock: Clock) -> None:
    tenants = memory(clock)
    tenants.see(["a"])
    tenants.see(["a"])
    assert not tenants.are_several
    tenants.see(["b"])
    assert tenants.are_several


def test_a_tenant_that_is_silent_for_a_day_is_forgotten(clock: Clock) -> None:
    tenants = memory(clock)
    tenants.see(["b"])
    clock.now += MEMORY_SECONDS - EXCHANGE_SECONDS
    tenants.see(["a"])
    tenants.turn()
    assert tenants.are_several
    clock.now += 2 * EXCHANGE_SECONDS
    tenants.see(["a"])
    tenants.turn()
    assert not tenants.are_several


def test_workers_of_a_group_learn_from_each_other_and_a_new_one_knows_at_its_start(
    clock: Clock, store: TenantStore
) -> None:
    first, second = memory(clock, store), memory(clock, store)
    first.see(["a"])
    second.see(["b"])
    clock.now += EXCHANGE_SECONDS
    for worker in (first, second, first):
        worker.turn()
        clock.now += EXCHANGE_SECONDS
    assert (first.are_several, second.are_several) == (True, True)
    assert memory(clock, store).are_several


def test_a_second_tenant_is_told_at_once(clock: Clock, store: TenantStore) -> None:
    worker = memory(clock, store)
    worker.see(["a", "b"])
    worker.turn()
    assert memory(clock, store).are_several


def test_little_is_kept_of_many_tenants(clock: Clock, store: TenantStore) -> None:
    worker = memory(clock, store)
    for number in range(1000):
        clock.now += 1
        worker.see([str(number)])
    worker.turn()
    assert set(store.exchange({})) == {"998", "999"}
    assert len(worker._seen) == KEPT


def test_without_redis_a_worker_knows_what_it_has_seen_itself(clock: Clock) -> None:
    worker = memory(clock, RedisTenants(BrokenRedis(), "group"))  # type: ignore[arg-type]
    worker.see(["a"])
    worker.turn()
    assert not worker.are_several
    worker.see(["b"])
    worker.turn()
    assert worker.are_several
