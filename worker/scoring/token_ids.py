"""The format of token ids, shared by tokenizers and text towers."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

TokenIds = NDArray[np.int32]
"""[texts, context]; 0 after the end of a text."""

Tokenize = Callable[[Sequence[str]], TokenIds]
"""Texts to their token ids."""


def lengths(ids: TokenIds) -> NDArray[np.intp]:
    """The number of tokens of each text, including its end token: the first token with the highest id."""
    ends: NDArray[np.intp] = ids.argmax(axis=1) + 1
    return ends
