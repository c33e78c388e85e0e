"""Images beside their prompts, from event to verdict, in the whole worker with a real engine."""

import json
import threading
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
from PIL import Image

from schemas import FileReference, ImageEvent, Verdict
from tests.unit.trt_build.towers import write_model
from worker.cli.options import Place
from worker.cli.stream import open_stream
from worker.settings import FileSettings, Settings
from worker.wiring import build_embedded_worker

pytestmark = pytest.mark.integration

PROMPTS = ("a cat", "a dog", None, "a cat")
SECONDS = 60


@pytest.mark.parametrize("prompts", [True, False])
def test_one_image_with_several_prompts_has_a_verdict_for_each(prompts: bool, tmp_path: Path) -> None:
    write_model(tmp_path / "model", prompts=prompts)
    Image.new("RGB", (50, 40), "orange").save(tmp_path / "a.png")
    settings = Settings(model=str(tmp_path / "model"), files=FileSettings(roots=(tmp_path,)))
    place = Place(settings, tmp_path / "data")
    worker = build_embedded_worker(settings, tmp_path / "data")
    stop = threading.Event()
    thread = threading.Thread(target=worker.run, args=(stop,))
    thread.start()
    try:
        with closing(open_stream(place)) as stream:
            for number, prompt in enumerate(PROMPTS):
                event = ImageEvent(
                    id=str(number),
                    occurred_at=datetime.now(UTC),
                    image=FileReference(path=str(tmp_path / "a.png")),
                    prompt=prompt,
                )
                stream.publish(event.id.encode(), event.model_dump_json(by_alias=True).encode())
            stream.flush()
            verdicts: dict[str, Verdict] = {}
            for record in stream.read(settings.kafka.topics.verdicts, from_beginning=True, follow=True):
                verdict = Verdict.model_validate(json.loads(record.value or b""))
                verdicts[verdict.event_id] = verdict
                if len(verdicts) == len(PROMPTS):
                    break
    finally:
        stop.set()
        thread.join(SECONDS)
    scores = [verdicts[str(number)].scores for number in range(len(PROMPTS))]
    fits = [each and each.correspondence for each in scores]

    assert len({each.quality for each in scores if each is not None}) == 1
    if prompts:
        assert fits[0] == fits[3] != fits[1]
        assert fits[1] is not None
        assert fits[2] is None
    else:
        assert fits == [None] * 4
        assert sum(verdict.cached for verdict in verdicts.values()) == 3
