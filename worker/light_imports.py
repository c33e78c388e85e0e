"""Keeps a library from importing a part of itself that is slow to load and never used here."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType


@contextmanager
def without_module(name: str) -> Iterator[None]:
    """While the block imports a package, an empty module stands in for `name`, a module of that package.

    Does nothing when `name` was imported before. Afterwards `name` can be imported as usual.
    """
    if name in sys.modules:
        yield
        return
    stand_in = sys.modules[name] = ModuleType(name)
    try:
        yield
    finally:
        if sys.modules.get(name) is stand_in:
            del sys.modules[name]
