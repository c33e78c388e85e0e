"""Writes what the chart holds of other parts: python -m ops.helm [--check]

Helm reads only files inside a chart. So alerts and dashboards of ops/ are copied into it; the options of topics, the
names of secret settings and the schema of `settings` are written from the code that they belong to.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, SecretStr

from worker.intake.topics import topic_configs
from worker.settings import KafkaSettings, Settings
from worker.settings.loading import sections_of

ROOT = Path(__file__).parents[2]
CHART = ROOT / "deploy/helm/sluice"
SCHEMA = CHART / "values.schema.json"
REPLICAS = 3


def chart_files() -> dict[Path, str]:
    """The text of every file in the chart that comes from elsewhere."""
    files = {CHART / "files/rules.yaml": (ROOT / "ops/prometheus/rules.yaml").read_text()}
    for dashboard in sorted((ROOT / "ops/grafana/dashboards").glob("*.json")):
        files[CHART / "files/dashboards" / dashboard.name] = dashboard.read_text()
    files[CHART / "files/topics.json"] = _json(_topics())
    secret = {path: f"SLUICE_{path.replace('.', '__').upper()}" for path in sorted(_secrets(Settings))}
    files[CHART / "files/secret-settings.json"] = _json(secret)
    files[SCHEMA] = _json({**json.loads(SCHEMA.read_text()), "$defs": _settings_schema()})
    return files


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="only say whether the files are as they would be written")
    check = parser.parse_args().check
    files = chart_files()
    stale = [path for path, text in files.items() if not path.exists() or path.read_text() != text]
    stale += [path for path in (CHART / "files").rglob("*") if path.is_file() and path not in files]
    if check and stale:
        names = ", ".join(str(path.relative_to(ROOT)) for path in stale)
        sys.exit(f"stale: {names}; write them with python -m ops.helm")
    for path in [] if check else stale:
        if path in files:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(files[path])
        else:
            path.unlink()


def _topics() -> dict[str, Any]:
    """By the topic's key in `kafka.topics` its default name and Kafka's options."""
    settings = KafkaSettings()
    configs = topic_configs(settings, replication_factor=REPLICAS)
    names = settings.topics.model_dump(exclude_none=True)  # one without a name is not there by default
    return {role: {"name": name, "config": configs[name]} for role, name in names.items()}


def _secrets(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """The paths of settings that hold a secret; `*` stands for any name in a mapping."""
    for name, field in model.model_fields.items():
        for kind in (field.annotation, *get_args(field.annotation)):
            if kind is SecretStr or SecretStr in get_args(kind):
                yield f"{prefix}{name}"
        for path, section in sections_of(name, field.annotation):
            yield from _secrets(section, f"{prefix}{path}.")


def _settings_schema() -> dict[str, Any]:
    """The schema of `settings`, with its sections beside it as `$defs`.

    Secrets come by variables, so none is required; that none is given either, the chart's own check says more clearly.
    """
    schema = Settings.model_json_schema()
    sections: dict[str, Any] = schema.pop("$defs")
    secret = {path.rpartition(".")[2] for path in _secrets(Settings)}
    for section in sections.values():
        if "required" in section:
            section["required"] = [name for name in section["required"] if name not in secret]
    return {**sections, "Settings": schema}


def _json(data: Any) -> str:
    return json.dumps(data, indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    main()
