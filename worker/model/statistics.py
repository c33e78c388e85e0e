"""Maps described as `StatisticsJudge` sees them: a few numbers each, computed once."""

import numpy as np
from numpy.typing import NDArray

from worker.model.maps import Maps
from worker.model.network import COARSE_WINDOWS

Statistics = NDArray[np.float32]
"""[images, 2 * DESCRIPTION]"""

CHUNK = 64


def describe_maps(maps: Maps) -> Statistics:
    """Mean and deviation of each channel over windows and positions, of the coarse stream, then of the fine one."""
    described = []
    for first in range(0, len(maps), CHUNK):
        values = np.asarray(maps[first : first + CHUNK], np.float32)
        parts = values[:, :COARSE_WINDOWS], values[:, COARSE_WINDOWS:]
        described.append(np.concatenate([f(part, axis=(1, 3, 4)) for part in parts for f in (np.mean, np.std)], axis=1))
    return np.concatenate(described)
