"""What a file says of its origin is read from every format, within limits, and comes out as plain text."""

import io
import json
import struct
import time
import zlib
from functools import cache
from typing import Any

import pillow_heif
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from schemas import Provenance
from tests.unit.images.made_images import encoded, picture
from worker.images.exif import tags
from worker.images.provenance.reader import ProvenanceReader

A1111 = (
    "a cat, <lora:detail:1>\nNegative prompt: blurry\n"
    'Steps: 28, Sampler: DPM++ 2M Karras, CFG scale: 7, Seed: 3519357233, Size: 512x512, Model: "dream, v8", '
    'Lora hashes: "detail: 1234", Version: v1.9.0'
)
SAID_BY_A1111 = Provenance(
    found=True, generator="a1111", model="dream, v8", sampler="DPM++ 2M Karras", steps=28, seed="3519357233"
)
COMFYUI = {
    "3": {
        "class_type": "KSampler",
        "is_changed": [float("nan")],  # ComfyUI writes this, which is no JSON
        "inputs": {"seed": 2**64 - 1, "steps": 20, "sampler_name": "euler", "model": ["4", 0]},
    },
    "4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "sd_xl_base_1.0.safetensors"}},
}
SAID_BY_COMFYUI = Provenance(
    found=True,
    generator="comfyui",
    model="sd_xl_base_1.0.safetensors",
    sampler="euler",
    steps=20,
    seed=str(2**64 - 1),
)
FLUX = {
    "1": {"class_type": "RandomNoise", "inputs": {"noise_seed": 7}},
    "2": {"class_type": "BasicScheduler", "inputs": {"steps": 4, "model": ["5", 0]}},
    "3": {"class_type": "KSamplerSelect", "inputs": {"sampler_name": "res_2s"}},
    "5": {"class_type": "UNETLoader", "inputs": {"unet_name": "flux1-dev"}},
}
INVOKEAI = {"app_version": "5.0", "seed": 9, "steps": 30, "scheduler": "euler_a", "model": {"name": "Juggernaut XL"}}
INVOKEAI_2 = {"model_weights": "stable-diffusion-1.5", "image": {"seed": 5, "steps": 50, "sampler": "k_lms"}}
MIDJOURNEY = "a cat --ar 16:9 --seed 12 --v 6.1 Job ID: 01234567-89ab-cdef-0123-456789abcdef"

READER = ProvenanceReader()


def read(data: bytes) -> Provenance:
    started = time.process_time()
    found = READER.read(data)
    assert time.process_time() - started < 1
    return found


def png(*texts: tuple[str, str], packed: bool = False, international: bool = False) -> bytes:
    info = PngInfo()
    for keyword, text in texts:
        if international:
            info.add_itxt(keyword, text, zip=packed)
        else:
            info.add_text(keyword, text, zip=packed)
    return encoded(picture(), "PNG", pnginfo=info)


def png_with(*chunks: tuple[bytes, bytes]) -> bytes:
    """The picture, with chunks behind the header."""
    whole = encoded(picture(), "PNG")
    made = b"".join(
        struct.pack(">I4s", len(content), name) + content + struct.pack(">I", zlib.crc32(name + content))
        for name, content in chunks
    )
    return whole[:33] + made + whole[33:]


def exif_block(tags: dict[int, Any], comment: bytes | None = None) -> bytes:
    exif = Image.Exif()
    for tag, value in tags.items():
        exif[tag] = value
    if comment is not None:
        exif.get_ifd(0x8769)[0x9286] = comment
    return exif.tobytes()


def xmp(properties: str, elements: str = "") -> bytes:
    return (
        '<?xpacket begin="" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">'
        '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about="" '
        'xmlns:i="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" xmlns:xmp="http://ns.adobe.com/xap/1.0/" '
        f'xmlns:dc="http://purl.org/dc/elements/1.1/" {properties}>{elements}</rdf:Description></rdf:RDF>'
        '</x:xmpmeta><?xpacket end="w"?>'
    ).encode()


SOURCE = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"


def test_a_file_without_metadata_says_nothing() -> None:
    for kind in ("PNG", "JPEG", "WEBP", "GIF", "AVIF", "BMP", "TIFF"):
        assert read(encoded(picture(), kind)) == Provenance()


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("international", [False, True])
def test_the_texts_of_png_chunks_are_read(packed: bool, international: bool) -> None:
    assert read(png(("parameters", A1111), packed=packed, international=international)) == SAID_BY_A1111
    graph = ("prompt", json.dumps(COMFYUI))
    assert read(png(graph, ("workflow", "{}"), packed=packed, international=international)) == SAID_BY_COMFYUI


@pytest.mark.parametrize(
    ("keyword", "text", "said"),
    [
        (
            "prompt",
            json.dumps(FLUX),
            Provenance(generator="comfyui", model="flux1-dev", sampler="res_2s", steps=4, seed="7"),
        ),
        ("workflow", '{"last_node_id": 9, "nodes": [], "links": []}', Provenance(generator="comfyui")),
        (
            "invokeai_metadata",
            json.dumps(INVOKEAI),
            Provenance(generator="invokeai", model="Juggernaut XL", sampler="euler_a", steps=30, seed="9"),
        ),
        (
            "sd-metadata",
            json.dumps(INVOKEAI_2),
            Provenance(generator="invokeai", model="stable-diffusion-1.5", sampler="k_lms", steps=50, seed="5"),
        ),
        (
            "Dream",
            '"a cat" -s50 -S123 -W512 -A k_lms',
            Provenance(generator="invokeai", sampler="k_lms", steps=50, seed="123"),
        ),
        ("Description", MIDJOURNEY, Provenance(generator="midjourney", model="v6.1", seed="12")),
        (
            "Description",
            MIDJOURNEY.replace("--v 6.1", "--niji 6"),
            Provenance(generator="midjourney", model="niji 6", seed="12"),
        ),
        (
            "parameters",
            "Steps: 5, Sampler: LCM, Seed: -1",
            Provenance(generator="a1111", sampler="LCM", steps=5, seed="-1"),
        ),
    ],
)
def test_each_generator_is_recognised(keyword: str, text: str, said: Provenance) -> None:
    assert read(png((keyword, text))) == said.model_copy(update={"found": True})


@pytest.mark.parametrize(
    ("keyword", "text"),
    [
        ("parameters", "a cat walks up Steps: 12 of them"),
        ("parameters", "Steps: wash, rinse"),
        ("prompt", "a cat on a mat"),
        ("prompt", '{"a": 1}'),
        ("Description", "Job ID: 17"),
        ("Comment", A1111),
    ],
)
def test_other_texts_are_no_generator_s(keyword: str, text: str) -> None:
    assert read(png((keyword, text))) == Provenance()


@pytest.mark.parametrize("encoding", ["utf-16-be", "utf-16-le", "ascii"])
@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "AVIF", "TIFF", "PNG"])
def test_the_user_comment_is_read_in_every_format(kind: str, encoding: str) -> None:
    code = b"ASCII\0\0\0" if encoding == "ascii" else b"UNICODE\0"
    block = exif_block({}, code + A1111.encode(encoding))
    assert read(encoded(picture(), kind, exif=block)) == SAID_BY_A1111


def test_heic_and_jpeg_xl_are_read_too() -> None:
    block = exif_block({}, b"ASCII\0\0\0" + A1111.encode())
    buffer = io.BytesIO()
    pillow_heif.from_pillow(picture()).save(buffer, exif=block, quality=80)
    assert read(buffer.getvalue()) == SAID_BY_A1111
    tiff = block.removeprefix(b"Exif\0\0")
    packet = xmp(f'i:DigitalSourceType="{SOURCE}"')
    boxes = (b"ftyp", b"jxl \0\0\0\0jxl "), (b"Exif", bytes(4) + tiff), (b"xml ", packet), (b"jxlc", b"\xff\x0a")
    file = b"\0\0\0\x0cJXL \r\n\x87\n" + b"".join(
        struct.pack(">I4s", 8 + len(content), name) + content for name, content in boxes
    )
    assert read(file) == SAID_BY_A1111.model_copy(update={"source_type": "trainedAlgorithmicMedia"})


def test_comfyui_s_workflow_in_exif_is_read() -> None:
    block = exif_block({0x0110: f"prompt:{json.dumps(COMFYUI)}", 0x010F: "workflow:{}"})
    assert read(encoded(picture(), "WEBP", exif=block)) == SAID_BY_COMFYUI


def test_a_camera_s_make_and_model_are_no_generator() -> None:
    block = exif_block({0x010F: "Canon", 0x0110: "EOS R5", 0x0131: "darktable 4.6"})
    assert read(encoded(picture(), "JPEG", exif=block)) == Provenance(software="darktable 4.6")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "AVIF", "TIFF"])
@pytest.mark.parametrize(
    "packet",
    [
        xmp(f'i:DigitalSourceType="{SOURCE}"'),
        xmp("", f"<i:DigitalSourceType>{SOURCE}</i:DigitalSourceType>"),
        xmp("", f'<i:DigitalSourceType rdf:resource="{SOURCE}"/>'),
        xmp('i:DigitalSourceType="trainedAlgorithmicMedia"'),
    ],
)
def test_the_iptc_source_type_is_read_however_it_is_written(kind: str, packet: bytes) -> None:
    if kind == "PNG":
        data = png_with((b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + packet))
    elif kind == "TIFF":
        data = encoded(picture(), kind, tiffinfo={700: packet})
    else:
        data = encoded(picture(), kind, xmp=packet)
    assert read(data) == Provenance(found=True, source_type="trainedAlgorithmicMedia")


def test_midjourney_s_description_in_xmp_is_read() -> None:
    text = f"<dc:description><rdf:Alt><rdf:li xml:lang='x-default'>{MIDJOURNEY}</rdf:li></rdf:Alt></dc:description>"
    said = read(encoded(picture(), "JPEG", xmp=xmp('xmp:CreatorTool="Photoshop"', text)))
    assert said == Provenance(found=True, generator="midjourney", model="v6.1", seed="12", software="Photoshop")


# Hostile files


def test_texts_are_plain_and_cut() -> None:
    evil = "<script>alert(1)</script>\x1b[31m\x00\u202e\u2066\ud800 \n\t model" + "x" * 10_000
    graph = {"1": {"class_type": "Loader", "inputs": {"ckpt_name": evil, "seed": "1" * 30, "steps": 10**30}}}
    said = read(png(("prompt", json.dumps(graph))))
    assert said.model is not None
    assert said.model.startswith("<script>alert(1)</script>[31m modelxxx")
    assert len(said.model) == 200
    assert (said.seed, said.steps) == (None, None)
    assert Provenance.model_validate_json(said.model_dump_json()) == said


def test_bytes_that_are_no_text_do_no_harm() -> None:
    assert read(png_with((b"iTXt", b"parameters\0\0\0\0\0Steps: 3, Seed: 4, Model: \xff\xfe\xc3"))).seed == "4"
    assert read(png_with((b"tEXt", b"parameters\0Steps: 3, Seed: 4, Model: caf\xe9"))).model == "caf\u00e9"
    for broken in (b"", b"parameters", b"parameters\0", b"\0" * 90, b"parameters\0\1\0en", b"x" * 200):
        for name in (b"tEXt", b"zTXt", b"iTXt"):
            assert read(png_with((name, broken))) == Provenance()


def test_a_text_of_100_mb_costs_no_more_than_its_first_part() -> None:
    chunk = b"parameters\0" + A1111.encode() + b"\nx" * 50_000_000
    data = png_with((b"tEXt", chunk))
    assert len(data) > 100_000_000
    assert read(data) == SAID_BY_A1111


def test_a_text_that_unpacks_to_gigabytes_is_cut() -> None:
    bomb = zlib.compress(b"a" * 50_000_000, 9)
    for keyword in (b"parameters", b"prompt", b"workflow", b"Description", b"XML:com.adobe.xmp"):
        assert read(png_with((b"zTXt", keyword + b"\0\0" + bomb))) == Provenance()
        assert read(png_with((b"iTXt", keyword + b"\0\1\0\0\0" + bomb))) == Provenance()


def test_of_many_texts_of_one_name_only_the_first_is_unpacked() -> None:
    ends_badly = zlib.compress(b"a" * 1_000_000, 9)[:-4] + bytes(4)  # its checksum is wrong
    for keyword in (b"XML:com.adobe.xmp\0\1\0\0\0", b"parameters\0\1\0\0\0"):
        assert read(png_with(*[(b"iTXt", keyword + ends_badly)] * 5000)) == Provenance()


def test_of_many_exif_tags_of_one_kind_only_the_first_is_copied() -> None:
    class Counted(bytes):
        copied = 0

        def __getitem__(self, key: Any) -> Any:
            found = super().__getitem__(key)
            Counted.copied += len(found) if isinstance(found, bytes) else 0
            return found

    entries = struct.pack("<HHII", 0x0131, 2, 100_000, 8) * 1000
    block = Counted(b"II*\0\x08\0\0\0" + struct.pack("<H", 1000) + entries + b"x" * 100_000)
    assert len(tags(block, (0x0131,), 50_000)[0x0131]) == 50_000
    assert Counted.copied < 51_000


@pytest.mark.parametrize(
    "graph",
    [
        "{" + '"a":{' * 100_000 + "}" * 100_001,
        '{"1":' + "[" * 500_000,
        '{"1":{"class_type":"K","inputs":{"seed":' + "9" * 10_000 + "}}}",
        '{"1":{"class_type":"K","inputs":{"seed":' + "[" * 900 + "]" * 900 + "}}}",
    ],
)
def test_graphs_that_are_deep_or_absurd_say_little(graph: str) -> None:
    said = read(png(("prompt", graph)))
    assert said.model_copy(update={"found": False, "generator": None}) == Provenance()


def test_a_graph_that_is_too_long_to_parse_still_names_its_tool() -> None:
    graph = {"0": {"class_type": "Note", "inputs": {"text": "x" * 2_000_000}}} | COMFYUI
    assert read(png(("prompt", json.dumps(graph)))) == Provenance(found=True, generator="comfyui")


@pytest.mark.parametrize(
    "packet",
    [
        b'<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;">]>' + xmp(f'i:DigitalSourceType="{SOURCE}"'),
        b"<a>" * 100_000,
        b"<a " + b"b='c' " * 100_000,
        b"\xff\xfe\x00\x00",
        b"",
    ],
    ids=["entities", "deep", "repeated", "not text", "empty"],
)
def test_hostile_xmp_says_nothing(packet: bytes) -> None:
    assert read(png_with((b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + packet))) == Provenance()


def test_a_loop_of_exif_directories_ends() -> None:
    block = b"II*\0\x08\0\0\0" + struct.pack("<H", 2) + struct.pack("<HHII", 34665, 4, 1, 8) * 2 + bytes(4)
    assert read(encoded(picture(), "JPEG", exif=b"Exif\0\0" + block)) == Provenance()


@cache
def with_everything(kind: str) -> bytes:
    if kind == "GIF":
        return encoded(picture(16, 16), kind)
    block = exif_block({0x0131: "tool"}, b"UNICODE\0" + A1111.encode("utf-16-be"))
    return encoded(picture(16, 16), kind, exif=block)


@given(st.sampled_from(["PNG", "JPEG", "WEBP", "AVIF", "TIFF", "GIF"]), st.data())
def test_any_damage_is_survived(kind: str, data: st.DataObject) -> None:
    whole = bytearray(with_everything(kind))
    for _ in range(data.draw(st.integers(1, 5))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    del whole[data.draw(st.integers(1, len(whole))) :]
    said = READER._read(bytes(whole))  # not `read`, which would only log what was not foreseen
    assert Provenance.model_validate_json(said.model_dump_json()) == said
