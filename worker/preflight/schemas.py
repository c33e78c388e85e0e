"""Checks that the schema registry answers."""

from collections.abc import Iterator

import httpx

from worker.intake.schema_registry import open_client, registry_login
from worker.preflight.finding import CheckStatus, Finding
from worker.settings import SchemaRegistrySettings, SettingsError


def check_registry(settings: SchemaRegistrySettings) -> Iterator[Finding]:
    """Asks the registry for its schema types. Never raises."""
    check = "schema registry"
    advice = "check kafka.schema_registry; Avro records wait until it answers"
    try:
        with open_client(settings) as client:
            answer = client.get(f"{settings.url.rstrip('/')}/schemas/types", auth=registry_login(settings))
            answer.raise_for_status()
    except httpx.HTTPStatusError as error:
        yield Finding(check, CheckStatus.WRONG, f"answers with status {error.response.status_code}", advice)
    except (httpx.HTTPError, OSError, SettingsError) as error:
        detail = f"{settings.url} does not answer ({error})"
        yield Finding(check, CheckStatus.WRONG, detail, advice, lasting=False)
    else:
        yield Finding(check, CheckStatus.OK, f"connected to {settings.url}")
