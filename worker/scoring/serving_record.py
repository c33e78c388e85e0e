"""Which version of a model serves: `<model>/serving.json`, which `sluice model promote` and `rollback` extend."""

from typing import Annotated, Literal, Self

from pydantic import AwareDatetime, Field, ValidationError, model_validator

from schemas import Name
from worker.scoring.manifest import StrictModel, explain
from worker.scoring.stores import FileStore, RepositoryError

SERVING_NAME = "serving.json"


class EngineParity(StrictModel):
    """An engine of a promoted version, and the parity report with which it was promoted.

    `digest` identifies the engine. `report` is the report's path below the version's folder, with its sha256. An engine
    that was promoted without a passing report has neither.
    """

    engine: str
    digest: str
    report: str | None = None
    report_sha256: str | None = None


class Promotion(StrictModel):
    """One change of the serving version: the version, the person, the time and the engines.

    `digest` is the digest of the version's manifest.
    """

    action: Literal["promote", "rollback"]
    version: Name
    digest: str
    by: Annotated[str, Field(min_length=1, max_length=200)]
    at: AwareDatetime
    note: Annotated[str, Field(max_length=1000)] = ""
    engines: tuple[EngineParity, ...] = ()


class ServingRecord(StrictModel):
    """All promotions and rollbacks of a model, oldest first: `sluice.serving/1`. The last entry names the serving
    version.
    """

    schema_: Literal["sluice.serving/1"] = Field(default="sluice.serving/1", alias="schema")
    model: Name
    log: Annotated[tuple[Promotion, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _rollbacks_restore_what_served(self) -> Self:
        self._stack()
        return self

    @property
    def serving(self) -> Promotion:
        """The change that made the serving version serve."""
        return self.log[-1]

    @property
    def before(self) -> Promotion | None:
        """The promotion that a rollback restores; None when there is none."""
        stack = self._stack()
        return stack[-2] if len(stack) > 1 else None

    def _stack(self) -> list[Promotion]:
        """The promotions that were not rolled back, the serving one last."""
        stack: list[Promotion] = []
        for number, entry in enumerate(self.log):
            if entry.action == "promote":
                stack.append(entry)
                continue
            if len(stack) < 2 or stack[-2].version != entry.version:
                raise ValueError(f"log[{number}]: this rollback does not restore the version that served before")
            stack.pop()
        return stack


def read_serving(store: FileStore, name: str = SERVING_NAME) -> tuple[ServingRecord | None, bytes | None]:
    """The serving record in a store's file, and the file's content. None, None if no version was promoted. Raises
    RepositoryError for a damaged record.
    """
    content = store.read(name)
    if content is None:
        return None, None
    try:
        return ServingRecord.model_validate_json(content), content
    except ValidationError as error:
        raise RepositoryError(
            f"{store.where(name)} is damaged: {explain(error)}; restore it, or remove it and promote again"
        ) from error
