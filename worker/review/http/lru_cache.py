"""What was used last, as much of it as fits."""

import threading
from collections import OrderedDict
from typing import Generic, TypeVar

Entry = TypeVar("Entry")


class LruCache(Generic[Entry]):
    """Entries by key, at most `max_bytes` of them together; those that were used longest ago go first. Thread-safe."""

    def __init__(self, max_bytes: int) -> None:
        self._max = max_bytes
        self._size = 0
        self._lock = threading.Lock()
        self._entries: OrderedDict[tuple[str, ...], tuple[Entry, int]] = OrderedDict()

    def get(self, key: tuple[str, ...]) -> Entry | None:
        with self._lock:
            found = self._entries.get(key)
            if found is None:
                return None
            self._entries.move_to_end(key)
            return found[0]

    def put(self, key: tuple[str, ...], entry: Entry, size: int) -> None:
        with self._lock:
            if key in self._entries or size > self._max:
                return
            self._entries[key] = entry, size
            self._size += size
            while self._size > self._max:
                _, (_, freed) = self._entries.popitem(last=False)
                self._size -= freed
