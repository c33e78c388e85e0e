"""Audited images, counted by the probability with which they were drawn."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class Audits:
    """Settled audits: `good[k]` and `bad[k]` of those drawn with the `probabilities[k]`, which rise."""

    probabilities: NDArray[np.float64]
    good: NDArray[np.float64]
    bad: NDArray[np.float64]

    @classmethod
    def counted(cls, counts: Mapping[float, tuple[int, int]]) -> Self:
        """From the numbers of good and bad images by probability. Raises ValueError for what cannot be."""
        rows = sorted(counts.items())
        for probability, (good, bad) in rows:
            if not 0 < probability <= 1 or good < 0 or bad < 0:
                raise ValueError(f"{good} good and {bad} bad images drawn with a probability of {probability}")
        return cls(
            np.array([probability for probability, _ in rows]),
            np.array([float(good) for _, (good, _) in rows]),
            np.array([float(bad) for _, (_, bad) in rows]),
        )

    @classmethod
    def of(cls, audits: Iterable[tuple[float, bool]]) -> Self:
        """From the probability of each image and whether it was bad."""
        counts: dict[float, tuple[int, int]] = {}
        for probability, is_bad in audits:
            good, bad = counts.get(probability, (0, 0))
            counts[probability] = (good + (not is_bad), bad + is_bad)
        return cls.counted(counts)

    @property
    def audited(self) -> int:
        return int(self.good.sum() + self.bad.sum())

    @property
    def missed(self) -> int:
        return int(self.bad.sum())

    @property
    def represented(self) -> float:
        """How many passed images the audits stand for: the sum of 1/probability (Horvitz and Thompson, 1952)."""
        return float(((self.good + self.bad) / self.probabilities).sum())

    @property
    def share(self) -> float | None:
        """The share of bad images among those that passed: the weighted mean (Hájek, 1971). None without audits."""
        total = self.represented
        return float((self.bad / self.probabilities).sum()) / total if total else None
