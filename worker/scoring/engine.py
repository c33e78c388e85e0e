"""The engine: from views, and prompts where they are known, to features."""

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from worker.view import ViewSpec

Views = Mapping[str, NDArray[np.uint8]]
"""View name → one contiguous array, [batch, *view.shape], uint8 RGB."""

Features = Mapping[str, NDArray[np.float32]]
"""Tower name → [batch, features], float32; under `PROMPT` what the prompt head made of rows with a prompt."""

Prompts = Sequence[str | None]
"""For each row the prompt that its image was made from; None where it is not known."""

PROMPT = "prompt"
"""The entry of Features that holds the prompt head's scores."""


class EngineError(Exception):
    """The engine failed. What `infer` raises is one of the two kinds below; starting an engine may raise others."""


class BatchFailed(EngineError):
    """The engine failed on this batch. It may judge others, and this one when it is tried again."""


class EngineLost(EngineError):
    """The engine will never answer again in this process, as after the loss of a GPU. Only a new process helps."""


class Engine(Protocol):
    """Runs the towers of one model. Safe to call from several threads."""

    @property
    def max_batch(self) -> int:
        """The largest batch that `infer` takes."""

    def infer(self, views: Views, prompts: Prompts | None = None) -> Features:
        """The features of a batch. Raises BatchFailed when the backend fails on it, EngineLost when it always will.

        `prompts` has an entry for each row; absent, no row has one. A model with a prompt head answers prompts with one
        more entry, `PROMPT`: float32 [batch, scores], in the order of the manifest's `prompt.scores`, NaN in the rows
        without a prompt. There is no such entry without `prompts`, nor from a model without a prompt head, which
        ignores them.
        """

    def close(self) -> None:
        """Frees what the engine holds. It must not be used afterwards."""


def blank_views(views: Mapping[str, ViewSpec]) -> Views:
    """A batch of one black image, for warming an engine up and for checking that it answers."""
    return {name: np.zeros((1, *view.shape), np.uint8) for name, view in views.items()}


def check_batch(views: Views, specs: Mapping[str, ViewSpec], max_batch: int) -> int:
    """The number of images in a batch that fits a model's views. Raises BatchFailed for one that does not."""
    if set(views) != set(specs):
        raise BatchFailed(f"got the views {sorted(views)}, the model needs {sorted(specs)}")
    for name, pixels in views.items():
        if pixels.dtype != np.uint8 or pixels.shape[1:] != specs[name].shape:
            raise BatchFailed(
                f"view {name!r} is {pixels.dtype}{list(pixels.shape)}, "
                f"the model needs uint8{['batch', *specs[name].shape]}"
            )
    batches = {len(pixels) for pixels in views.values()}
    if len(batches) != 1 or not 0 < max(batches) <= max_batch:
        raise BatchFailed(f"views of {sorted(batches)} images; one batch has 1 to {max_batch}, in all views alike")
    return batches.pop()
