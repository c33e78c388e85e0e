"""`python -m schemas.generate` writes the contracts as JSON Schemas (json/) and an AsyncAPI document (asyncapi.yaml).

`--check` writes nothing and fails when a file is not what would be written.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Literal

import yaml

from schemas.audit_plan import AuditPlan
from schemas.base import Contract
from schemas.dead_letter import DeadLetter, DeadLetterAction
from schemas.image_event import ImageEvent
from schemas.review import AuditEntry, Decision, ReviewItem
from schemas.verdict import Verdict

CONTRACTS: Final[tuple[type[Contract], ...]] = (
    ImageEvent,
    Verdict,
    ReviewItem,
    Decision,
    AuditEntry,
    AuditPlan,
    DeadLetter,
    DeadLetterAction,
)
FOLDER: Final = Path(__file__).parent

_DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
_CHANNELS: Final[tuple[tuple[str, str, type[Contract], Literal["receive", "send"], str], ...]] = (
    (
        "images",
        "images.in",
        ImageEvent,
        "receive",
        "Images to judge. Beside image events the worker takes S3 notifications (AWS, MinIO, Ceph) and CloudEvents"
        " 1.0 in both content modes, whose data is an image event or an S3 notification.",
    ),
    ("verdicts", "images.verdicts", Verdict, "send", "One verdict for each image event, also for failed ones."),
    ("review", "images.review", ReviewItem, "send", "Images that people should look at."),
    (
        "decisions",
        "images.decisions",
        Decision,
        "send",
        "What people decided at the review desk, keyed by review item. `resolution` is what counts for the image.",
    ),
    ("audit", "images.audit", AuditEntry, "send", "Every action at the review desk, for good."),
    (
        "audit_plans",
        "images.audit.plans",
        AuditPlan,
        "send",
        "With which probability a passed image is drawn for the audit, and from when on. Compacted.",
    ),
    ("dead", "images.dead", DeadLetter, "send", "Records that could not be judged, as they came, with the reason."),
    (
        "dead_actions",
        "images.dead.actions",
        DeadLetterAction,
        "send",
        "What people did about dead letters: redriven or dropped, by whom and why. Compacted.",
    ),
    (
        "replays",
        "images.replays",
        Verdict,
        "send",
        "Verdicts on past events, judged again by `sluice replay`. The header `sluice-replay` names the run.",
    ),
    *(
        (
            f"retry_{tier}",
            f"images.retry.{tier}",
            ImageEvent,
            "send",
            "Events that wait for another attempt to fetch their image. Only Sluice writes and reads it. The header "
            "`sluice-deferred` says where the event first stood, when it is due, and what was tried.",
        )
        for tier in (1, 2, 3)
    ),
    *(
        (
            name,
            f"images.{name.replace('_', '.')}",
            ImageEvent,
            "send",
            "Events of tenants that sent more than their share. Only Sluice writes and reads it. The header "
            "`sluice-deferred` says where the event first stood. A record with the header `sluice-pack` holds up to "
            "100 such records, as MessagePack: [[value, key or nil, [[header name, header value], ...]], ...].",
        )
        for name in ("surplus", "surplus_long")
    ),
)


def contract_name(contract: type[Contract]) -> str:
    """`image-event` of `sluice.image-event/1`."""
    return _identifier(contract).removeprefix("sluice.").partition("/")[0]


def json_schema(contract: type[Contract]) -> dict[str, Any]:
    """The contract's JSON Schema (2020-12): of what is taken for an event, of what is written for the others."""
    schema = contract.model_json_schema(mode="validation" if contract is ImageEvent else "serialization")
    for reference in schema.get("$defs", {}).values():
        if "const" in reference.get("properties", {}).get("kind", {}):  # has a default, but tells references apart
            reference["required"] = sorted({"kind", *reference["required"]}, key=list(reference["properties"]).index)
    required = sorted({"schema", *schema["required"]}, key=list(schema["properties"]).index)
    return {
        "$schema": _DIALECT,
        "$id": f"urn:{_identifier(contract).replace('/', ':')}",
        **schema,
        "required": required,
    }


def asyncapi() -> dict[str, Any]:
    """The AsyncAPI 3 document: the topics, and what the worker does with them."""
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Sluice",
            "version": "1",
            "description": "Image events in, routed verdicts out. Topic names are settings; these are the defaults.",
            "license": {"name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"},
        },
        "defaultContentType": "application/json",
        "channels": {
            name: {
                "address": address,
                "description": text,
                "messages": {contract.__name__: {"$ref": f"#/components/messages/{contract.__name__}"}},
            }
            for name, address, contract, _, text in _CHANNELS
        },
        "operations": {
            f"{action}_{name}": {
                "action": action,
                "channel": {"$ref": f"#/channels/{name}"},
                "messages": [{"$ref": f"#/channels/{name}/messages/{contract.__name__}"}],
            }
            for name, _, contract, action, _ in _CHANNELS
        },
        "components": {"messages": {contract.__name__: _message(contract) for contract in CONTRACTS}},
    }


def files() -> dict[Path, str]:
    """Every generated file with its content."""
    written = {
        FOLDER / "json" / f"{contract_name(contract)}.json": json.dumps(json_schema(contract), indent=2) + "\n"
        for contract in CONTRACTS
    }
    head = "# Written by `python -m schemas.generate`; change the models instead.\n"
    written[FOLDER / "asyncapi.yaml"] = head + yaml.safe_dump(asyncapi(), sort_keys=False, width=120)
    return written


def stale() -> list[Path]:
    """The files that are missing or differ from what would be written, and those that no contract writes any more."""
    current = files()
    differing = [path for path, text in current.items() if not path.exists() or path.read_text("utf-8") != text]
    return differing + sorted(set((FOLDER / "json").glob("*.json")) - current.keys())


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m schemas.generate", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail when a file is stale")
    if parser.parse_args(arguments).check:
        found = stale()
        for path in found:
            print(f"{path}: stale; run `python -m schemas.generate`", file=sys.stderr)
        return 1 if found else 0
    for path in stale():
        path.unlink(missing_ok=True)
    for path, text in files().items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, "utf-8")
    return 0


def _identifier(contract: type[Contract]) -> str:
    return str(contract.model_fields["schema_"].default)


def _message(contract: type[Contract]) -> dict[str, Any]:
    return {
        "name": contract.__name__,
        "title": _identifier(contract),
        "contentType": "application/json",
        "payload": {
            "schemaFormat": "application/schema+json;version=draft-2020-12",
            "schema": {"$ref": f"./json/{contract_name(contract)}.json"},
        },
    }


if __name__ == "__main__":
    sys.exit(main())
