"""The process that verifies C2PA manifests. `c2pa_process.py` starts it and asks it.

Once the library is loaded it confines itself (`sandbox.py`).
"""

import io
import json
import socket
from typing import Any, Final

from worker.images.sandbox import confine, limit_cpu, receive, run, send

TEXT_CHARACTERS: Final = 2000
_FAILED: Final = "failed"

_OFFLINE: Final = {
    "verify": {"remote_manifest_fetch": False, "ocsp_fetch": False, "verify_trust": True},
    "core": {"allowed_network_hosts": []},
}


def serve(connection: socket.socket) -> None:
    """The first message holds the options. Each pair of messages after that is a media type and a file; the answer is a
    JSON object. The answer to the options is an error message, or empty."""
    import c2pa

    options = json.loads(receive(connection))
    settings: dict[str, Any] = dict(_OFFLINE)
    if options["trust_pem"]:
        settings["trust"] = {"trust_anchors": options["trust_pem"]}
    try:
        context = c2pa.Context.from_dict(settings)
    except c2pa.C2paError as error:
        send(connection, str(error).encode() or _FAILED.encode())
        return
    _report(c2pa, context, "image/png", b"")  # loads what is loaded at the first use
    confine(memory_bytes=options["memory_bytes"])
    send(connection, b"")
    while True:
        media_type, data = receive(connection).decode(), receive(connection)
        limit_cpu(options["cpu_seconds"])
        send(connection, json.dumps(_report(c2pa, context, media_type, data)).encode())


def _report(c2pa: Any, context: Any, media_type: str, data: bytes) -> dict[str, str | None]:
    try:
        with c2pa.Reader(media_type, io.BytesIO(data), context=context) as reader:
            return _summary(json.loads(reader.json()))
    except c2pa.C2paError.ManifestNotFound:
        return {"state": "absent"}
    except (c2pa.C2paError, ValueError, RecursionError):
        return {"state": "invalid"}


def _summary(store: dict[str, Any]) -> dict[str, str | None]:
    state = {"Valid": "valid", "Trusted": "trusted"}.get(str(store.get("validation_state")), "invalid")
    manifest = store.get("manifests", {}).get(store.get("active_manifest")) or {}
    signature = manifest.get("signature_info") or {}
    return {
        "state": state,
        "generator": _text(_claim_generator(manifest)),
        "signer": _text(signature.get("common_name") or signature.get("issuer")),
        "source_type": _text(_source_type(manifest)),
    }


def _claim_generator(manifest: dict[str, Any]) -> object:
    for info in manifest.get("claim_generator_info") or ():
        if isinstance(info, dict) and info.get("name"):
            return f"{info['name']} {info['version']}" if isinstance(info.get("version"), str) else info["name"]
    return manifest.get("claim_generator")


def _source_type(manifest: dict[str, Any]) -> object:
    """Of the action that made the image, else of the first action that has one (C2PA 2.2, 18.15)."""
    actions = [
        action
        for assertion in manifest.get("assertions") or ()
        if isinstance(assertion, dict) and str(assertion.get("label", "")).startswith("c2pa.actions")
        for action in _list(assertion.get("data"), "actions")
        if isinstance(action, dict) and action.get("digitalSourceType")
    ]
    actions.sort(key=lambda action: action.get("action") != "c2pa.created")
    return actions[0]["digitalSourceType"] if actions else None


def _list(data: object, name: str) -> list[Any]:
    found = data.get(name) if isinstance(data, dict) else None
    return found if isinstance(found, list) else []


def _text(value: object) -> str | None:
    return value[:TEXT_CHARACTERS] if isinstance(value, str) else None


if __name__ == "__main__":
    run(serve)
