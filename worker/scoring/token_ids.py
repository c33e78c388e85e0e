"""Token ids of texts, as every tokenizer and text tower here has them."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

TokenIds = NDArray[np.int32]
"""[texts, context]; 0 after the end of a text."""

Tokenize = Callable[[Sequence[str]], TokenIds]
"""Texts to their token ids."""


def lengths(ids: TokenIds) -> NDArray[np.intp]:
    """How many tokens each text has, its end token included: the end has the highest id, and the first one counts."""
    ends: NDArray[np.intp] = ids.argmax(axis=1) + 1
    return ends
