"""The engine: from views to features."""

from collections.abc import Mapping
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Views = Mapping[str, NDArray[np.uint8]]
"""View name → one contiguous array, [batch, *view.shape], uint8 RGB."""

Features = Mapping[str, NDArray[np.float32]]
"""Tower name → [batch, features], float32."""


class EngineError(Exception):
    """The engine failed on a batch; the batch may be tried again."""


class Engine(Protocol):
    """Runs the towers of one model. Safe to call from several threads."""

    @property
    def max_batch(self) -> int:
        """The largest batch that `infer` takes."""

    def infer(self, views: Views) -> Features:
        """The features of a batch. Raises EngineError when the backend fails."""

    def close(self) -> None:
        """Frees what the engine holds. It must not be used afterwards."""
