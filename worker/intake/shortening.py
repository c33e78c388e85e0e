"""Shortens an output that is larger than its topic takes; the output says so, and where the whole can be read."""

import json
from typing import Any

from worker.intake.log import Output

MOST_PROMPT_CHARACTERS = 2000


def shorten(output: Output, limit: int) -> Output | None:
    """The output with a value of at most `limit` bytes, or None where that cannot be.

    A dead letter keeps as much of its payload as fits, a review item loses its features, an image that it carries and
    the end of a long prompt. Each says in its failure's message that it was cut, and where the record stands.
    """
    fields: dict[str, Any] = json.loads(output.value)
    if fields.get("schema") == "sluice.dead-letter/1":
        fitting = _shorten_letter(fields, limit)
    elif fields.get("schema") == "sluice.review-item/1":
        fitting = _shorten_item(fields, limit)
    else:
        return None
    return None if fitting is None else output._replace(value=fitting)


def _shorten_letter(fields: dict[str, Any], limit: int) -> bytes | None:
    payload = fields["payload"] or ""
    fields["payload"] = ""
    _tell(fields, "the payload was cut")
    room = limit - len(_encoded(fields))
    if room < 0:
        fields["headers"], fields["key"] = [], None
        room = limit - len(_encoded(fields))
    if room < 0:
        return None
    fields["payload"] = payload[: room // 4 * 4]  # base64: four characters are three bytes
    return _encoded(fields)


def _shorten_item(fields: dict[str, Any], limit: int) -> bytes | None:
    fields["features"] = {}
    if len(value := _encoded(fields)) <= limit:
        return value
    carried = isinstance(fields["image"], dict) and fields["image"].get("kind") == "inline"
    if carried:
        fields["image"] = None
    if len(fields["prompt"] or "") > MOST_PROMPT_CHARACTERS:
        fields["prompt"] = fields["prompt"][:MOST_PROMPT_CHARACTERS] + "…"
    _tell(fields, "the image that came with the event was left out of this item" if carried else "the prompt was cut")
    value = _encoded(fields)
    return value if len(value) <= limit else None


def _tell(fields: dict[str, Any], what: str) -> None:
    source = fields["source"]
    place = f"{source['topic']}/{source['partition']}, offset {source['offset']}"
    told = f"{what}, because the topic takes no larger record; the event is in {place}"
    failure = fields["failure"] or {"reason": "event_too_large", "message": "", "attempts": 1}
    if told not in failure["message"]:
        failure["message"] = f"{failure['message'][:1000]} ({told})" if failure["message"] else told
    fields["failure"] = failure


def _encoded(fields: dict[str, Any]) -> bytes:
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode()
