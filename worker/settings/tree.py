"""The whole tree of settings."""

import re
from pathlib import Path
from typing import Annotated, Final, Self

from pydantic import BeforeValidator, Field, StringConstraints, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from schemas.base import Name
from worker.settings.doors import GatewaySettings, WebSettings
from worker.settings.fairness import FairnessSettings
from worker.settings.review import ReviewSettings
from worker.settings.servers import KafkaSettings, RedisSettings, S3Settings
from worker.settings.work import (
    EngineSettings,
    FileSettings,
    HttpSettings,
    ImageSettings,
    IntakeSettings,
    TelemetrySettings,
)

PREFIX: Final = "SLUICE_"
DELIMITER: Final = "__"

_S3_OBJECT = r"s3://[a-z0-9][a-z0-9.-]+/[^/\s][^\s]*"
S3Address = Annotated[str, StringConstraints(pattern=f"^{_S3_OBJECT}$", max_length=1200)]


def _address(value: object) -> object:
    """Rejects a mistyped s3:// address, which would otherwise be taken for a file path."""
    if not isinstance(value, str | Path):
        raise ValueError("expected the path of a file or s3://bucket/key")  # noqa: TRY004  # pydantic takes it for a fault of the value
    if isinstance(value, str) and value.startswith("s3:") and not re.fullmatch(_S3_OBJECT, value):
        raise ValueError("an S3 object is written s3://bucket/key")
    return value


PolicyAddress = Annotated[S3Address | Path, BeforeValidator(_address)]
"""The place of a policy: `s3://bucket/key`, or a file."""


class Settings(BaseSettings):
    """The model and policy that judge images, and one section for everything else."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_nested_delimiter=DELIMITER,
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,
    )

    model: str = "mst-lite"
    """The name of a shipped model, the path of a manifest, or a place in a model repository: `DIR/NAME` uses the
    promoted version, `DIR/NAME/VERSION` that version. `DIR` is a folder or `s3://bucket/prefix`."""
    policy: PolicyAddress | None = None
    """The policy: a file or `s3://bucket/key`. Default: the policy that ships with Sluice. Workers load a changed
    policy within seconds. The desk saves policies to this place."""
    shadow_policies: dict[Name, PolicyAddress] = Field(default_factory=dict)
    """Policies, by name, that are evaluated beside the live one. Their routes are reported in verdicts and have no
    other effect."""
    kafka: KafkaSettings = KafkaSettings()
    redis: RedisSettings = RedisSettings()
    s3: S3Settings = S3Settings()
    http: HttpSettings = HttpSettings()
    files: FileSettings = FileSettings()
    images: ImageSettings = ImageSettings()
    engine: EngineSettings = EngineSettings()
    intake: IntakeSettings = IntakeSettings()
    fairness: FairnessSettings = FairnessSettings()
    telemetry: TelemetrySettings = TelemetrySettings()
    review: ReviewSettings = ReviewSettings()
    web: WebSettings = WebSettings()
    gateway: GatewaySettings = GatewaySettings()

    @model_validator(mode="after")
    def _can_take_an_inflight_record(self) -> Self:
        if self.kafka.max_message_bytes > self.intake.max_bytes_in_flight:
            raise ValueError(
                "kafka.max_message_bytes is more than intake.max_bytes_in_flight: a record could not enter"
            )
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Reads only the arguments. `load_settings` adds the environment variables, because it reports mistyped
        names.
        """
        return (init_settings,)
