"""One settings tree: a YAML file, overridden by SLUICE_* variables (`SLUICE_KAFKA__BOOTSTRAP_SERVERS`)."""

from worker.settings.doors import GatewaySettings, OidcSettings, WebSettings
from worker.settings.fairness import FairnessSettings
from worker.settings.loading import SettingsError, change_settings, load_settings
from worker.settings.review import QueueSettings, ReviewSettings, WebhookSettings
from worker.settings.servers import (
    KafkaOAuthSettings,
    KafkaSettings,
    RedisSettings,
    S3Settings,
    SchemaRegistrySettings,
    TopicSettings,
)
from worker.settings.tree import PolicyAddress, Settings
from worker.settings.work import (
    EngineSettings,
    FileSettings,
    HttpSettings,
    ImageSettings,
    IntakeSettings,
    TelemetrySettings,
)

__all__ = [
    "EngineSettings",
    "FairnessSettings",
    "FileSettings",
    "GatewaySettings",
    "HttpSettings",
    "ImageSettings",
    "IntakeSettings",
    "KafkaOAuthSettings",
    "KafkaSettings",
    "OidcSettings",
    "PolicyAddress",
    "QueueSettings",
    "RedisSettings",
    "ReviewSettings",
    "S3Settings",
    "SchemaRegistrySettings",
    "Settings",
    "SettingsError",
    "TelemetrySettings",
    "TopicSettings",
    "WebSettings",
    "WebhookSettings",
    "change_settings",
    "load_settings",
]
