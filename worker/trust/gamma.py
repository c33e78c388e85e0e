"""The gamma distribution. SciPy has it, but the worker does not need SciPy for anything else."""

import math
from typing import Final

_STEPS: Final = 100
_NORMAL_ABOVE: Final = 1e5


def gamma_quantile(probability: float, shape: float) -> float:
    """The value below which a gamma variable with this shape and scale 1 lies with the given probability, to about ten
    digits. 0 for shape 0. Raises ValueError for a probability outside of 0..1 or a negative shape."""
    if not 0 < probability < 1 or shape < 0:
        raise ValueError(f"the quantile {probability} of a gamma distribution with shape {shape}")
    if shape == 0:
        return 0.0
    low, high = 0.0, shape + 10.0
    while gamma_cdf(high, shape) < probability:
        high *= 2
    for _ in range(_STEPS):
        middle = (low + high) / 2
        if middle in (low, high):
            break
        if gamma_cdf(middle, shape) < probability:
            low = middle
        else:
            high = middle
    return high


def gamma_cdf(value: float, shape: float) -> float:
    """The regularized lower incomplete gamma function P(shape, value), by its series (DLMF 8.11.4); for shapes above
    100,000 by Wilson and Hilferty's approximation (1931)."""
    if value <= 0:
        return 0.0
    if shape > _NORMAL_ABOVE:
        z = ((value / shape) ** (1 / 3) - 1 + 1 / (9 * shape)) * 3 * math.sqrt(shape)
        return 0.5 * math.erfc(-z / math.sqrt(2))
    term = total = 1.0
    scale = shape * math.log(value) - value - math.lgamma(shape + 1)
    step = shape
    while term > total * 1e-16:
        step += 1
        term *= value / step
        total += term
        if total > 1e250:
            scale += math.log(total)
            term, total = term / total, 1.0
    return min(1.0, math.exp(scale + math.log(total)))
