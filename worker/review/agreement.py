"""How far reviewers agree beyond chance."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations

from schemas import Vote

Panel = Mapping[str, Vote]
"""The votes on one item, by reviewer."""


def cohen_kappa(pairs: Sequence[tuple[str, str]]) -> float | None:
    """Agreement of two raters over the items that both rated (Cohen 1960): 1 always, 0 as by chance, below 0 less.

    None without items, and where both only ever gave one same answer, so that chance alone explains everything.
    """
    if not pairs:
        return None
    total = len(pairs)
    first, second = Counter(a for a, _ in pairs), Counter(b for _, b in pairs)
    observed = sum(a == b for a, b in pairs) / total
    expected = sum(first[answer] * second[answer] for answer in first) / total**2
    return None if expected == 1 else (observed - expected) / (1 - expected)


def fleiss_kappa(ratings: Sequence[Sequence[str]]) -> float | None:
    """Agreement of any raters over items with equally many ratings each (Fleiss 1971); None as for Cohen's.

    Raises ValueError when the items have unequal numbers of ratings, or fewer than two.
    """
    if not ratings:
        return None
    raters = len(ratings[0])
    if raters < 2 or any(len(item) != raters for item in ratings):
        raise ValueError("each item needs the same number of ratings, two at least")
    answers: Counter[str] = Counter()
    observed = 0.0
    for item in ratings:
        counts = Counter(item)
        answers += counts
        observed += sum(n * (n - 1) for n in counts.values()) / (raters * (raters - 1))
    observed /= len(ratings)
    total = len(ratings) * raters
    expected = sum((n / total) ** 2 for n in answers.values())
    return None if expected == 1 else (observed - expected) / (1 - expected)


def pairwise_kappas(panels: Iterable[Panel], at_least: int) -> dict[tuple[str, str], float]:
    """Cohen's kappa of each two reviewers, in alphabetical order, who share `at_least` items."""
    shared: defaultdict[tuple[str, str], list[tuple[str, str]]] = defaultdict(list)
    for panel in panels:
        for a, b in combinations(sorted(panel), 2):
            shared[a, b].append((panel[a], panel[b]))
    kappas = {names: cohen_kappa(pairs) for names, pairs in shared.items() if len(pairs) >= at_least}
    return {names: kappa for names, kappa in kappas.items() if kappa is not None}


def overall_kappa(panels: Iterable[Panel], at_least: int) -> float | None:
    """Fleiss' kappa over the panels of the most frequent size; None for fewer than `at_least` of it."""
    by_size: defaultdict[int, list[list[str]]] = defaultdict(list)
    for panel in panels:
        if len(panel) >= 2:
            by_size[len(panel)].append(list(panel.values()))
    most = max(by_size.values(), key=len, default=[])
    return fleiss_kappa(most) if len(most) >= at_least else None
