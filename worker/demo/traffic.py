"""The stream of the demo: the samples, degraded copies of them, and what else arrives at a gate."""

import json
import uuid
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from PIL import Image

from schemas import FileReference, HttpReference, ImageEvent, ImageReference, InlineReference
from worker.demo.hostile import write_hostile_files
from worker.samples.degrade import DEGRADATIONS
from worker.samples.sample import Sample

REPEATED = 5
"""Samples that are submitted a second time."""

DELETION = {
    "Records": [
        {
            "eventVersion": "2.1",
            "eventSource": "aws:s3",
            "eventName": "ObjectRemoved:Delete",
            "eventTime": "2026-01-01T00:00:00.000Z",
            "s3": {"bucket": {"name": "images"}, "object": {"key": "gone.jpg", "sequencer": "0055AED6DCD90281E5"}},
        }
    ]
}
"""A notification that asks for no verdict."""


@dataclass(frozen=True, slots=True)
class DemoImage:
    """What the report knows of an event's image before it is judged."""

    name: str
    path: Path | None = None
    generator: str | None = None
    human: float | None = None
    original: str | None = None
    degradation: str | None = None


@dataclass(slots=True)
class Wave:
    """Records, key and value each, that are sent together, and how many verdicts they should bring."""

    records: list[tuple[bytes, bytes]] = field(default_factory=list)
    verdicts: int = 0

    def add(self, key: bytes, value: bytes, verdicts: int = 1) -> None:
        self.records.append((key, value))
        self.verdicts += verdicts


@dataclass(slots=True)
class Traffic:
    """Two waves, and the picture behind each event id. The second repeats images that the first had judged."""

    first: Wave = field(default_factory=Wave)
    second: Wave = field(default_factory=Wave)
    pictures: dict[str, DemoImage] = field(default_factory=dict)


def degraded_copies(samples: Sequence[Sample], folder: Path, threads: int = 2) -> Iterator[tuple[Sample, str, Path]]:
    """Writes each sample's degraded copies into `folder`: sample, degradation, file, as they are done."""

    def spoil(sample: Sample) -> list[tuple[Sample, str, Path]]:
        with Image.open(sample.path) as opened:
            image = opened.convert("RGB")
        copies = []
        for name, degrade in DEGRADATIONS.items():
            path = folder / f"{sample.path.stem}.{name}.jpg"
            path.write_bytes(degrade(image))
            copies.append((sample, name, path))
        return copies

    with ThreadPoolExecutor(threads, thread_name_prefix="spoil") as pool:
        for copies in pool.map(spoil, samples):
            yield from copies


class TrafficMaker:
    """Makes the records of one run; `run` keeps its event ids apart from those of other runs."""

    def __init__(self, run: str | None = None) -> None:
        self._run = run or f"demo-{uuid.uuid4().hex[:8]}"
        self._traffic = Traffic()

    def make(self, samples: Sequence[Sample], copies: Sequence[tuple[Sample, str, Path]], folder: Path) -> Traffic:
        """All records of the demo. Writes the hostile files into `folder`."""
        for sample in samples:
            self._add(_picture(sample), FileReference(path=str(sample.path)), prompt=sample.prompt)
        for sample, degradation, path in copies:
            picture = DemoImage(path.name, path, sample.generator, None, sample.path.name, degradation)
            self._add(picture, FileReference(path=str(path)), prompt=sample.prompt)
        self._add_hostile(write_hostile_files(folder, samples[0].path.read_bytes()), samples[0])
        for sample in samples[:: max(len(samples) // REPEATED, 1)][:REPEATED]:
            picture = DemoImage(f"{sample.path.name}, again", sample.path, sample.generator)
            self._add(picture, FileReference(path=str(sample.path)), prompt=sample.prompt, second=True)
        inline = InlineReference(bytes=samples[1].path.read_bytes())
        self._add(
            DemoImage(f"{samples[1].path.name}, inline", samples[1].path, samples[1].generator),
            inline,
            prompt=samples[1].prompt,
            second=True,
        )
        return self._traffic

    def _add_hostile(self, files: Mapping[str, Path], sample: Sample) -> None:
        for name, path in files.items():
            self._add(DemoImage(name), FileReference(path=str(path)))
        missing = sample.path.with_name("missing.jpg")
        self._add(DemoImage("missing.jpg"), FileReference(path=str(missing)))
        self._add(DemoImage("/etc/passwd"), FileReference(path="/etc/passwd"))
        metadata = "http://169.254.169.254/latest/meta-data/"
        self._add(DemoImage("a cloud's metadata address"), HttpReference(url=metadata))
        self._add(DemoImage("an image that was exchanged"), FileReference(path=str(sample.path)), sha256="0" * 64)
        self._traffic.first.add(b"malformed", b'{"schema": "sluice.image-event/1", "id": "cut of')
        self._traffic.first.add(b"deletion", json.dumps(DELETION).encode(), verdicts=0)

    def _add(
        self,
        picture: DemoImage,
        reference: ImageReference,
        *,
        prompt: str | None = None,
        sha256: str | None = None,
        second: bool = False,
    ) -> None:
        event = ImageEvent(
            id=f"{self._run}/{len(self._traffic.pictures)}",
            occurred_at=datetime.now(UTC),
            tenant="demo",
            image=reference,
            prompt=prompt,
            generator=picture.generator,
            sha256=sha256,
        )
        wave = self._traffic.second if second else self._traffic.first
        wave.add(event.id.encode(), event.model_dump_json(by_alias=True, exclude_none=True).encode())
        self._traffic.pictures[event.id] = picture


def _picture(sample: Sample) -> DemoImage:
    # AGIQA-3K's opinions run from 0 to 5, the model's scale from 1 to 5.
    return DemoImage(sample.path.name, sample.path, sample.generator, 1 + 0.8 * sample.human)
