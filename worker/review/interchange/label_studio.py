"""Label Studio's JSON: tasks with annotations (https://labelstud.io/guide/export and /guide/tasks).

A project for these tasks has the labelling configuration `config(labels)`.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TextIO
from xml.sax.saxutils import quoteattr

from schemas import Decision
from worker.review.answers import ItemView
from worker.review.interchange.votes import ImportedVote, InterchangeError, Refusal, address, parsed
from worker.review.item_state import VOTES


def config(labels: Sequence[str]) -> str:
    """The labelling configuration, with the reasons that reviewers may give."""
    reasons = "".join(f"    <Choice value={quoteattr(label)}/>\n" for label in labels)
    return f"""<View>
  <Image name="image" value="$image"/>
  <Text name="prompt" value="$prompt"/>
  <Choices name="outcome" toName="image" choice="single-radio" required="true">
    <Choice value="approve"/>
    <Choice value="reject"/>
  </Choices>
  <Choices name="labels" toName="image" choice="multiple">
{reasons}  </Choices>
  <TextArea name="note" toName="image"/>
  <Number name="quality" toName="image" min="1" max="5"/>
</View>
"""


def write(items: Iterable[ItemView], file: TextIO) -> int:
    """Tasks with the votes as annotations and the model's quality as prediction."""
    number = 0
    file.write("[")
    for number, view in enumerate(items, start=1):
        file.write(",\n" if number > 1 else "\n")
        json.dump(_task(view), file, ensure_ascii=False)
    file.write("\n]\n")
    return number


def read(file: TextIO) -> Iterator[ImportedVote | Refusal]:
    """The votes of an export in the JSON format (not JSON-MIN): one for each annotation that chose an outcome.

    `data.item_id` names the item, `completed_by` the reviewer. Annotations that were cancelled are passed over.
    Raises InterchangeError.
    """
    try:
        tasks = json.load(file)
    except ValueError as error:
        raise InterchangeError(f"not JSON: {error}") from error
    if not isinstance(tasks, list):
        raise InterchangeError("expected a list of tasks, as Label Studio exports it in its JSON format")
    for number, task in enumerate(tasks, start=1):
        place = f"task {number}"
        data = task.get("data") if isinstance(task, dict) else None
        if not isinstance(data, dict) or "item_id" not in data:
            yield Refusal(place, "has no data.item_id: it was not exported by Sluice")
            continue
        for annotation in task.get("annotations") or ():
            if isinstance(annotation, dict) and not annotation.get("was_cancelled"):
                yield _vote(place, str(data["item_id"]), annotation)


def _task(view: ItemView) -> dict[str, Any]:
    item = view.item
    task: dict[str, Any] = {
        "data": {
            "image": address(item.image),
            "prompt": item.prompt or "",
            "item_id": item.item_id,
            "event_id": item.event_id,
            "queue": item.queue,
            "tenant": item.tenant,
            "generator": item.generator or "",
            "rule": item.rule,
        },
        "annotations": [_annotation(decision) for decision in view.history if decision.outcome in VOTES],
    }
    if item.scores is not None:
        result = {**_tied("quality", "number"), "value": {"number": item.scores.quality}}
        task["predictions"] = [{"model_version": item.model, "result": [result]}]
    return task


def _annotation(decision: Decision) -> dict[str, Any]:
    result: list[dict[str, Any]] = [{**_tied("outcome", "choices"), "value": {"choices": [decision.outcome]}}]
    if decision.labels:
        result.append({**_tied("labels", "choices"), "value": {"choices": list(decision.labels)}})
    if decision.note:
        result.append({**_tied("note", "textarea"), "value": {"text": [decision.note]}})
    return {
        "completed_by": {"email": decision.reviewer},
        "created_at": decision.decided_at.isoformat(),
        "lead_time": decision.seconds_spent,
        "was_cancelled": False,
        "result": result,
    }


def _tied(name: str, kind: str) -> dict[str, str]:
    return {"id": name, "from_name": name, "to_name": "image", "type": kind}


def _vote(place: str, item_id: str, annotation: dict[str, Any]) -> ImportedVote | Refusal:
    values: dict[str, dict[str, Any]] = {}
    for result in annotation.get("result") or ():
        if isinstance(result, dict) and isinstance(result.get("value"), dict):
            values[str(result.get("from_name"))] = result["value"]
    chosen = values.get("outcome", {}).get("choices") or []
    if not isinstance(chosen, list) or len(chosen) != 1:
        return Refusal(place, "an annotation has no outcome: expected one choice, approve or reject, named outcome")
    by = annotation.get("completed_by")
    texts = values.get("note", {}).get("text") or []
    note = "\n".join(map(str, texts)) if isinstance(texts, list) else str(texts)
    return parsed(
        place,
        {
            "item_id": item_id,
            "outcome": chosen[0],
            "reviewer": str(by.get("email") or by.get("id")) if isinstance(by, dict) else str(by or "label-studio"),
            "labels": values.get("labels", {}).get("choices") or [],
            "note": note or None,
            "seconds_spent": annotation.get("lead_time"),
            "decided_at": annotation.get("created_at") or None,
        },
    )
