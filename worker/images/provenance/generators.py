"""Recognises the text that image generators embed, and reads model, sampler, steps and seed from it."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from schemas.provenance import GeneratorTool
from worker.images.provenance.plain_text import plain, seed, steps

JSON_CHARACTERS: Final = 1024 * 1024
"""Of a workflow that is parsed. A longer one still names its tool."""
NODES: Final = 10_000
_SETTINGS_CHARACTERS: Final = 8192
_A1111_SETTING: Final = re.compile(r'(?:^|, ?)(Steps|Sampler|Seed|Model): ("(?:\\.|[^"\\])*"|[^,\n]*)')
_MIDJOURNEY_JOB: Final = re.compile(r"Job ID: ?[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_MIDJOURNEY_OPTION: Final = re.compile(r"--(v|version|niji|seed) ([0-9]{1,20}(?:\.[0-9]{1,3})?)")
_DREAM_OPTION: Final = re.compile(r" -([sSA]) ?([A-Za-z0-9_+-]{1,40})")


@dataclass(frozen=True, slots=True)
class Generation:
    """What a generator says about how it made the image. All texts are plain and cut."""

    generator: GeneratorTool
    model: str | None = None
    sampler: str | None = None
    steps: int | None = None
    seed: str | None = None


def recognise(texts: Mapping[str, str]) -> Generation | None:
    """By texts of the file: the keywords of PNG chunks; `UserComment`, `ImageDescription`, `Make` and `Model` of Exif;
    `description` and `comment` of XMP. None where no generator is recognised."""
    for keyword in ("invokeai_metadata", "sd-metadata", "Dream"):
        if keyword in texts:
            return _invokeai(keyword, texts[keyword])
    for keyword in ("parameters", "UserComment", "comment"):
        if keyword in texts and (found := _a1111(texts[keyword])) is not None:
            return found
    if (graph := _comfyui_graph(texts)) is not None:
        return _comfyui(graph)
    for keyword in ("Description", "ImageDescription", "description"):
        if keyword in texts and _MIDJOURNEY_JOB.search(texts[keyword][-_SETTINGS_CHARACTERS:]):
            return _midjourney(texts[keyword][-_SETTINGS_CHARACTERS:])
    return None


def _a1111(text: str) -> Generation | None:
    """Automatic1111, and what writes as it does (Forge, SD.Next): the settings follow on a line after the prompts."""
    at = 0 if text.startswith("Steps: ") else text.rfind("\nSteps: ") + 1
    if not text.startswith("Steps: ", at):
        return None
    line = text[at : at + _SETTINGS_CHARACTERS].partition("\n")[0]
    found: dict[str, str] = {}
    for name, value in _A1111_SETTING.findall(line):
        found.setdefault(name, value.strip('"'))
    if "Seed" not in found and "Sampler" not in found:
        return None
    return Generation(
        "a1111", plain(found.get("Model")), plain(found.get("Sampler")), steps(found["Steps"]), seed(found.get("Seed"))
    )


def _comfyui_graph(texts: Mapping[str, str]) -> str | None:
    """The graph as it ran, else as it was drawn: chunks of a PNG, or Exif in other formats (`Model: prompt:{…}`)."""
    for name in ("prompt", "workflow"):
        if texts.get(name, "").lstrip().startswith("{"):
            return texts[name]
        for tag in ("Model", "Make", "ImageDescription", "UserComment"):
            text = texts.get(tag, "")
            if text[:32].lower().startswith(f"{name}:{{") or text[:32].lower().startswith(f"{name}: {{"):
                return text.partition(":")[2]
    return None


def _comfyui(graph: str) -> Generation | None:
    parsed = _parsed(graph)
    if parsed is None:  # too long or damaged: only a word of it says whose it is
        return Generation("comfyui") if '"class_type"' in graph or '"last_node_id"' in graph else None
    if isinstance(parsed.get("nodes"), list) and "links" in parsed:
        return Generation("comfyui")  # as it was drawn: values have no names there
    inputs = list(_inputs(parsed))
    if not inputs:
        return None
    sampling = next((each for each in inputs if "steps" in each and "sampler_name" in each), {})
    everywhere = [sampling, *inputs]
    return Generation(
        "comfyui",
        plain(_first(everywhere, "ckpt_name", "unet_name", "model_name")),
        plain(_first(everywhere, "sampler_name")),
        steps(_first(everywhere, "steps")),
        seed(_first(everywhere, "seed", "noise_seed")),
    )


def _inputs(graph: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    for _, node in zip(range(NODES), graph.values(), strict=False):
        if isinstance(node, dict) and isinstance(node.get("class_type"), str) and isinstance(node.get("inputs"), dict):
            yield node["inputs"]


def _first(inputs: list[Mapping[str, Any]], *names: str) -> Any:
    """The first value that is no link to another node."""
    values = (each[name] for name in names for each in inputs if name in each)
    return next((value for value in values if isinstance(value, str | int)), None)


def _invokeai(keyword: str, text: str) -> Generation:
    if keyword == "Dream":
        options = dict(_DREAM_OPTION.findall(text[-_SETTINGS_CHARACTERS:]))
        return Generation("invokeai", None, plain(options.get("A")), steps(options.get("s")), seed(options.get("S")))
    parsed = _parsed(text) or {}
    if keyword == "sd-metadata":
        image = parsed.get("image")
        image = image if isinstance(image, dict) else {}
        model, sampler = parsed.get("model_weights"), image.get("sampler")
        return Generation("invokeai", plain(model), plain(sampler), steps(image.get("steps")), seed(image.get("seed")))
    model = parsed.get("model")
    if isinstance(model, dict):
        model = model.get("name") or model.get("model_name")
    return Generation(
        "invokeai", plain(model), plain(parsed.get("scheduler")), steps(parsed.get("steps")), seed(parsed.get("seed"))
    )


def _midjourney(text: str) -> Generation:
    options = dict(_MIDJOURNEY_OPTION.findall(text))
    version = options.get("v") or options.get("version")
    model = f"niji {options['niji']}" if "niji" in options else f"v{version}" if version else None
    return Generation("midjourney", model, seed=seed(options.get("seed")))


def _parsed(text: str) -> dict[str, Any] | None:
    """A JSON object; None where it is damaged, too long or nested too deeply. ComfyUI writes NaN, which is no JSON."""
    if len(text) > JSON_CHARACTERS:
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
