"""Features of many images, cached on disk by content and towers."""

import hashlib
import json
import os
import sqlite3
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from worker.images.decode import decode
from worker.images.errors import ImageError
from worker.images.views import make_views
from worker.model.data import DataError, Example
from worker.scoring.engine import Engine, Features
from worker.scoring.manifest import ModelManifest

MAX_PIXELS = 200_000_000
BATCH = 16

Views = Mapping[str, NDArray[np.uint8]]


def default_cache() -> Path:
    """The default folder for features."""
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "sluice" / "features"


def towers_digest(manifest: ModelManifest) -> str:
    """Identity of the computation of features: the graph, its views and its towers. Heads do not matter."""
    described = {
        "graph": manifest.graph.sha256,
        "views": {name: view.model_dump(mode="json") for name, view in manifest.views.items()},
        "towers": [tower.model_dump(mode="json") for tower in manifest.towers],
    }
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()


def open_cache(folder: Path, name: str, key: str) -> sqlite3.Connection:
    """A file of features by key. Raises DataError if it cannot be created or is damaged."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        opened = sqlite3.connect(folder / name, timeout=60)
        opened.execute(f"CREATE TABLE IF NOT EXISTS features ({key} PRIMARY KEY, value BLOB NOT NULL)")
    except OSError as error:
        raise DataError(
            f"{folder}: features cannot be stored: {error.strerror}; use another folder with --cache"
        ) from error
    except sqlite3.Error as error:
        raise DataError(
            f"{folder / name}: features cannot be stored: {error}; remove the file, or use another folder with --cache"
        ) from error
    return opened


class FeatureCache:
    """One SQLite file for each set of towers: content hash → features of all towers, float32, end to end."""

    def __init__(self, folder: Path, manifest: ModelManifest) -> None:
        self._towers = manifest.towers
        self._width = sum(tower.features for tower in manifest.towers)
        self._file = open_cache(folder, f"{towers_digest(manifest)[:32]}.sqlite", "content TEXT")

    def get(self, content: str) -> NDArray[np.float32] | None:
        """The features of an image, [sum of towers' features]; None if they are not cached or are damaged."""
        found = self._file.execute("SELECT value FROM features WHERE content = ?", (content,)).fetchone()
        if found is None or len(found[0]) != 4 * self._width:
            return None
        return np.frombuffer(found[0], np.dtype("<f4")).astype(np.float32)

    def put(self, rows: Mapping[str, NDArray[np.float32]]) -> None:
        values = [(content, row.astype("<f4").tobytes()) for content, row in rows.items()]
        with self._file:
            self._file.executemany("INSERT OR REPLACE INTO features VALUES (?, ?)", values)

    def close(self) -> None:
        self._file.close()


def compute_features(
    manifest: ModelManifest,
    engine: Engine,
    examples: Sequence[Example],
    cache: Path,
    advance: Callable[[], None] = lambda: None,
) -> Features:
    """Tower name → [examples, features], in the order of the examples, from the cache if possible. Raises DataError for
    an image that cannot be read, EngineError if the engine fails.
    """
    with closing(FeatureCache(cache, manifest)) as known, ThreadPoolExecutor(2, "decode") as pool:
        contents = list(pool.map(_content, examples))
        rows: dict[str, NDArray[np.float32]] = {}
        unknown: dict[str, Example] = {}
        for content, example in zip(contents, examples, strict=True):
            row = known.get(content)
            if row is not None:
                rows[content] = row
                advance()
            elif content in unknown:
                advance()
            else:
                unknown[content] = example
        for batch in _batches(pool, unknown, manifest, min(BATCH, engine.max_batch)):
            views = {name: np.stack([views[name] for views in batch.values()]) for name in manifest.views}
            features = engine.infer(views)
            joined = np.concatenate([features[tower.name] for tower in manifest.towers], axis=1)
            made = dict(zip(batch, joined, strict=True))
            known.put(made)
            rows |= made
            for _ in made:
                advance()
    whole = np.stack([rows[content] for content in contents])
    ends = np.cumsum([tower.features for tower in manifest.towers])
    return dict(zip((tower.name for tower in manifest.towers), np.split(whole, ends[:-1], axis=1), strict=True))


def run_engine(
    manifest: ModelManifest, engine: Engine, examples: Sequence[Example], advance: Callable[[], None] = lambda: None
) -> Features:
    """The engine's features of the examples and their prompts, without the cache: other engines' features say nothing
    about this one. Otherwise like `compute_features`.
    """
    images = {str(index): example for index, example in enumerate(examples)}
    answers = []
    with ThreadPoolExecutor(2, "decode") as pool:
        for batch in _batches(pool, images, manifest, min(BATCH, engine.max_batch)):
            views = {name: np.stack([views[name] for views in batch.values()]) for name in manifest.views}
            answers.append(engine.infer(views, [examples[int(index)].prompt or None for index in batch]))
            for _ in batch:
                advance()
    return {name: np.concatenate([answer[name] for answer in answers]) for name in answers[0]}


def seconds_of_towers(manifest: ModelManifest, engine: Engine, examples: Sequence[Example], timed: int = 48) -> float:
    """The estimated time to decode the examples and run the towers on them once, measured on the first `timed`."""
    sample = {str(index): example for index, example in enumerate(examples[:timed])}
    with ThreadPoolExecutor(2, "decode") as pool:
        started = time.perf_counter()
        for batch in _batches(pool, sample, manifest, min(BATCH, engine.max_batch)):
            engine.infer({name: np.stack([views[name] for views in batch.values()]) for name in manifest.views})
        return (time.perf_counter() - started) * len(examples) / len(sample)


def _batches(
    pool: ThreadPoolExecutor, images: Mapping[str, Example], manifest: ModelManifest, size: int
) -> Iterator[dict[str, Views]]:
    """Content → views, in batches, decoded one batch ahead."""
    waiting: deque[tuple[str, Future[Views]]] = deque()
    left = iter(images.items())
    while True:
        while len(waiting) < 2 * size and (following := next(left, None)) is not None:
            waiting.append((following[0], pool.submit(_views, following[1], manifest)))
        if not waiting:
            return
        taken = [waiting.popleft() for _ in range(min(size, len(waiting)))]
        yield {content: future.result() for content, future in taken}


def _content(example: Example) -> str:
    try:
        return hashlib.sha256(example.image.read_bytes()).hexdigest()
    except OSError as error:
        raise DataError(f"{example.image}: cannot be read: {error.strerror}") from error


def _views(example: Example, manifest: ModelManifest) -> Views:
    try:
        return make_views(decode(example.image.read_bytes(), max_pixels=MAX_PIXELS), manifest.views)
    except ImageError as error:
        raise DataError(f"{example.image}: {error}") from error
