"""The stores that images come from, and which of them are down. Pure; the clock is passed in."""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Final
from urllib.parse import urlsplit

from schemas import HttpReference, ImageReference, S3Reference
from worker.backoff import Breaker

MAX_STORES: Final = 1000
"""So many are remembered: senders choose the hosts."""
SHOWN_STORES: Final = 10
"""So many troubles are listed; the others are counted."""
REFUSALS_TO_OPEN: Final = 5
"""So many objects refused, and none given between, and the store counts as refusing all of them."""
REFUSALS_TO_BE_SURE: Final = 20
"""With so many, no refused object is given up any more: it is the worker's permissions that are at fault."""


class Store:
    """One store: an S3 bucket, or the host of an HTTP address. Its breaker opens when it is down or refuses everything.

    It holds no reference to what waits for it.
    """

    def __init__(self, name: str, breaker: Breaker) -> None:
        self.name = name
        self._breaker = breaker
        self._refused: set[str] = set()
        self._credentials_refused = False
        self._given_asked_at = float("-inf")
        self._error = ""
        self._open_since: float | None = None

    @property
    def is_bucket(self) -> bool:
        """An S3 bucket, which the operator chose; hosts are chosen by whoever sends events."""
        return self.name.startswith("s3://")

    @property
    def is_down(self) -> bool:
        return self._breaker.is_open

    @property
    def down_since(self) -> float | None:
        """None while it is not down."""
        return self._open_since if self.is_down else None

    @property
    def refuses_all(self) -> bool:
        """It answers, and denies access to all that is asked for."""
        return self.is_down and (self._credentials_refused or len(self._refused) >= REFUSALS_TO_OPEN)

    @property
    def surely_refuses_all(self) -> bool:
        return self.is_down and (self._credentials_refused or len(self._refused) >= REFUSALS_TO_BE_SURE)

    def allow(self, now: float) -> bool:
        """Whether a fetch may go now. While the store is down, one goes each pause."""
        return self._breaker.allow(now)

    def retry_at(self) -> float:
        """When the next fetch may go; meaningful while it is down."""
        return self._breaker.retry_at()

    def answered(self, now: float, asked_at: float) -> None:
        """It gave an object that it was asked for at `asked_at`, or said that there is none."""
        self._breaker.record(True, now)
        self._refused.clear()
        self._credentials_refused = False
        self._given_asked_at = max(self._given_asked_at, asked_at)
        self._open_since = None

    def gave_what_was_asked_after(self, moment: float) -> bool:
        """Whether it has answered a request that began after that moment. A request that began before says nothing:
        the store may have begun to refuse everything while it was under way."""
        return self._given_asked_at > moment

    def failed(self, error: Exception, now: float) -> None:
        """It did not answer, or with a fault of its own."""
        self._error = str(error)
        self._breaker.record(False, now)
        self._note_state(now)

    def refused(self, key: str, error: Exception, now: float) -> None:
        """It denied access to one object."""
        self._error = str(error)
        if len(self._refused) < REFUSALS_TO_BE_SURE:
            self._refused.add(key)
        if self.is_down or len(self._refused) >= REFUSALS_TO_OPEN:
            self._breaker.trip(now)
        self._note_state(now)

    def refused_credentials(self, error: Exception, now: float) -> None:
        """It does not know the worker's credentials, or they have expired."""
        self._error = str(error)
        self._credentials_refused = True
        self._breaker.trip(now)
        self._note_state(now)

    def trouble(self, now: float) -> str:
        """What is wrong with a store that is down, for people."""
        seconds = 0.0 if self._open_since is None else now - self._open_since
        if self.refuses_all:
            return (
                f"{self.name} has refused everything for {seconds:.0f} s: {self._error}; "
                "check the worker's credentials and the store's permissions"
            )
        return f"{self.name} has not answered for {seconds:.0f} s: {self._error}"

    def _note_state(self, now: float) -> None:
        if self.is_down and self._open_since is None:
            self._open_since = now


class Stores:
    """The recently used stores, at most MAX_STORES; the least recently used one is dropped."""

    def __init__(self, *, pause_seconds: float = 2.0, min_calls: int = 20, max_stores: int = MAX_STORES) -> None:
        self._pause_seconds = pause_seconds
        self._min_calls = min_calls
        self._max_stores = max_stores
        self._stores: OrderedDict[str, Store] = OrderedDict()

    def __len__(self) -> int:
        return len(self._stores)

    def of(self, reference: ImageReference) -> Store | None:
        """The store of a reference; None for files and inline images, which have none."""
        name = store_name(reference)
        if name is None:
            return None
        store = self._stores.get(name)
        if store is None:
            breaker = Breaker(min_calls=self._min_calls, pause_seconds=self._pause_seconds)
            store = self._stores[name] = Store(name, breaker)
            if len(self._stores) > self._max_stores:
                self._forget_one()
        self._stores.move_to_end(name)
        return store

    def down(self) -> list[Store]:
        """From any thread."""
        return [store for store in list(self._stores.values()) if store.is_down]

    def _forget_one(self) -> None:
        """The oldest that works; where all are down, the oldest."""
        oldest = next((name for name, store in self._stores.items() if not store.is_down), next(iter(self._stores)))
        del self._stores[oldest]


def store_name(reference: ImageReference) -> str | None:
    """What a store is called in messages: `s3://bucket` or `https://host`, without what is secret in an address."""
    if isinstance(reference, S3Reference):
        return f"s3://{reference.bucket}"
    if isinstance(reference, HttpReference):
        try:
            parts = urlsplit(reference.url)
        except ValueError:
            return None
        return f"{parts.scheme.lower()}://{parts.netloc.rpartition('@')[2].lower()}"
    return None


def troubles(stores: Sequence[Store], now: float) -> tuple[str, ...]:
    """What is wrong with stores that are down: a line for each of the first, for people."""
    shown = tuple(f"{store.trouble(now)}; its events wait" for store in stores[:SHOWN_STORES])
    left_out = len(stores) - len(shown)
    return (*shown, f"and {left_out} more stores") if left_out else shown
