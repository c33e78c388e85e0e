"""Dead letters on an embedded log, and what acts on them."""

import random
from collections.abc import Iterator
from contextlib import ExitStack, closing
from datetime import UTC, datetime
from pathlib import Path

from schemas import AuditEntry, DeadLetter, DeadLetterAction, Failure, FailureReason, ImageEvent, S3Reference, Source
from worker.dead_letters.actions import ActionWriter, LetterActions
from worker.dead_letters.book import LetterBook, open_book
from worker.dead_letters.writers import EmbeddedWriter
from worker.intake.embedded import open_embedded_topics
from worker.intake.log import Output, Record
from worker.review.embedded_topics import EmbeddedTopics
from worker.settings import Settings

NOW = datetime(2026, 11, 30, 12, 0, tzinfo=UTC)


def event(name: str = "e1", tenant: str = "acme") -> ImageEvent:
    return ImageEvent(id=name, occurred_at=NOW, tenant=tenant, image=S3Reference(bucket="b", key=f"{name}.png"))


class LetterBench:
    """`letter` publishes dead letters, as the worker does; `images` are the records that were submitted again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.settings = Settings()
        self.names = self.settings.kafka.topics
        self.stack = ExitStack()
        self.topics = self.stack.enter_context(closing(open_embedded_topics(self.settings, folder)))
        self.reader = self.stack.enter_context(closing(EmbeddedTopics(self.settings, folder)))
        self.offset = 0

    def letter(
        self,
        value: ImageEvent | bytes | None,
        *,
        name: str | None = None,
        reason: FailureReason = FailureReason.IMAGE_NOT_FOUND,
        index: int = 0,
        partition: int = 0,
        offset: int | None = None,
        **more: object,
    ) -> DeadLetter:
        payload = value.model_dump_json(by_alias=True).encode() if isinstance(value, ImageEvent) else value
        number = self.offset if offset is None else offset
        self.offset += 1
        fields: dict[str, object] = {
            "event_id": value.id if isinstance(value, ImageEvent) else name or f"record:images.in/{partition}/{number}",
            "verdict_id": f"v{number}",
            "tenant": value.tenant if isinstance(value, ImageEvent) else None,
            "failed_at": NOW,
            "failure": Failure(reason=reason, message=f"no object s3://b/{name}"),
            "source": Source(topic="images.in", partition=partition, offset=number, index=index),
            "payload": payload,
            "payload_size": len(payload or b""),
        }
        letter = DeadLetter.model_validate({**fields, **more})
        self.topics.append([Output(self.names.dead, letter.model_dump_json().encode(), letter.event_id.encode())])
        return letter

    def book(self) -> LetterBook:
        book = open_book(self.reader, self.names)
        assert book.refresh()
        return book

    def actions(
        self,
        book: LetterBook,
        writer: ActionWriter | None = None,
        *,
        actor: str = "ana",
        run: str = "run-1",
        at: datetime = NOW,
    ) -> LetterActions:
        if writer is None:
            writer = self.stack.enter_context(closing(EmbeddedWriter(self.settings, self.folder)))
        return LetterActions(
            book,
            writer,
            self.settings.kafka,
            actor=actor,
            run=run,
            now=lambda: at,
            sleep=lambda _: None,
            rng=random.Random(1),
        )

    def records(self, topic: str) -> Iterator[Record]:
        positions = dict.fromkeys(self.topics.ends(topic), 0)
        while records := self.topics.read(positions):
            for record in records:
                positions[record.partition] = record.offset + 1
                yield record

    @property
    def images(self) -> list[Record]:
        return list(self.records(self.names.images))

    @property
    def submitted(self) -> list[str]:
        return sorted(ImageEvent.model_validate_json(record.value or b"").id for record in self.images)

    @property
    def done(self) -> list[DeadLetterAction]:
        return [
            DeadLetterAction.model_validate_json(record.value or b"")
            for record in self.records(self.names.dead_actions)
        ]

    @property
    def audit(self) -> list[AuditEntry]:
        return [AuditEntry.model_validate_json(record.value or b"") for record in self.records(self.names.audit)]
