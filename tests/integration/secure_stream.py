"""A user of the broker with TLS, logins and access control lists, its topics, and settings for a worker of its."""

import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from kafka.admin import ConfigResource, ConfigResourceType

from ops.dev.secure_kafka import SecureKafkaServer
from ops.dev.worker_topics import WORKER_TOPICS
from worker.settings import KafkaSettings

MESSAGE_BYTES = 2_000_000


class SecureStream:
    """Everything that a worker needs is there; a test takes away what it is about."""

    def __init__(self, kafka: SecureKafkaServer) -> None:
        self.kafka = kafka
        self.user = f"user-{secrets.token_hex(4)}"
        self.password = secrets.token_hex(8)
        self.group = f"group-{self.user}"
        self.topics = {name: f"{self.user}.{name}" for name in WORKER_TOPICS}
        kafka.add_user(self.user, self.password)
        self.make_topics(WORKER_TOPICS)
        kafka.allow(self.user, "topic", self.topics["images"], ["read", "describe_configs"])
        for name in WORKER_TOPICS[1:]:
            kafka.allow(self.user, "topic", self.topics[name], ["write", "describe_configs"])
            if name.startswith(("retry", "surplus")):
                kafka.allow(self.user, "topic", self.topics[name], ["read"])
        kafka.allow(self.user, "group", self.group, ["read"])
        kafka.allow(self.user, "transactional_id", f"{self.group}-*", ["write"])

    def make_topics(self, names: tuple[str, ...], **configs: str) -> None:
        options = {"max.message.bytes": str(MESSAGE_BYTES)} | configs
        with self.kafka.admin() as admin:
            admin.create_topics(
                {
                    self.topics[name]: {
                        "num_partitions": 2,
                        "replication_factor": 1,
                        "configs": options | ({"retention.ms": "-1"} if name == "review" else {}),
                    }
                    for name in names
                },
                wait_for_metadata=True,
            )

    def delete_topic(self, name: str) -> None:
        with self.kafka.admin() as admin:
            admin.delete_topics([self.topics[name]])

    def configure(self, name: str, **configs: str) -> None:
        with self.kafka.admin() as admin:
            resource = ConfigResource(
                ConfigResourceType.TOPIC, self.topics[name], {key.replace("_", "."): v for key, v in configs.items()}
            )
            admin.alter_configs([resource])

    def settings(self) -> dict[str, Any]:
        """The section `kafka` of a settings file."""
        return {
            "bootstrap_servers": self.kafka.sasl_servers,
            "security_protocol": "SASL_SSL",
            "sasl_mechanism": "SCRAM-SHA-512",
            "sasl_username": self.user,
            "sasl_password": self.password,
            "ssl_cafile": str(self.kafka.ca),
            "group_id": self.group,
            "topics": self.topics,
            "session_timeout_seconds": 6,
            "max_message_bytes": MESSAGE_BYTES,
        }

    def kafka_settings(self, **changes: object) -> KafkaSettings:
        return KafkaSettings.model_validate(self.settings() | changes)

    def write_config(self, path: Path, sections: Mapping[str, object]) -> Path:
        path.write_text(yaml.safe_dump({"kafka": self.settings(), **sections}))
        return path
