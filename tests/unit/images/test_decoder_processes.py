"""Images are decoded in processes of their own, which a hostile image can only end, and its own judgement with it."""

import io
import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.unit.images.shown_images import MOVING, SHOWN
from tests.unit.images.test_refused_images import REFUSED
from worker.images import decoder_pool, decoder_process, sandbox_process, syscall_filter
from worker.images.decode import DecodeLimits
from worker.images.decoded_views import DecodedViews, ThreadDecoder, ViewDecoder
from worker.images.decoder_pool import DecoderPool
from worker.images.decoder_process import DecoderDied, DecoderProcess
from worker.images.decoder_protocol import MESSAGE_CHARACTERS
from worker.images.errors import DecoderUnavailableError, ImageError
from worker.images.memory import MemoryBudget
from worker.settings import ImageSettings, SettingsError
from worker.settings.image_format import ImageFormat
from worker.view import ViewSpec

VIEWS = {
    "whole": ViewSpec(size=32, resize="squash", mean=(0, 0, 0), std=(1, 1, 1)),
    "detail": ViewSpec(size=16, resize="none", crop="grid", crops=4, mean=(0, 0, 0), std=(1, 1, 1)),
}
SETTINGS = ImageSettings(decoder_processes="all", formats=tuple(ImageFormat), max_pixels=4_000_000)
LIMITS = DecodeLimits.of(SETTINGS)


def encoded(format_name: str, *, frames: int = 1, size: int = 64, **options: Any) -> bytes:
    rng = np.random.default_rng(7)
    pictures = [
        Image.fromarray(rng.integers(0, 255, (size, size, 3), np.uint8).repeat(2, axis=0)) for _ in range(frames)
    ]
    buffer = io.BytesIO()
    if frames > 1:
        options |= {"save_all": True, "append_images": pictures[1:]}
    pictures[0].save(buffer, format_name, **options)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def deaths() -> list[str]:
    return []


@pytest.fixture(scope="module")
def pool(deaths: list[str]) -> Iterator[DecoderPool]:
    pool = DecoderPool(LIMITS, VIEWS, SETTINGS, on_death=lambda: deaths.append("died"))
    yield pool
    pool.close()


@pytest.mark.parametrize("name", sorted(SHOWN.keys() | MOVING.keys() | REFUSED.keys()))
def test_a_process_gives_what_a_thread_gives(pool: DecoderPool, name: str) -> None:
    """The same views and pixels, or the same refusal in the same words: every library was loaded before the process
    closed itself in."""
    data = ({**SHOWN, **MOVING, **{refused: make for refused, (make, _) in REFUSED.items()}})[name]()
    if len(data) > SETTINGS.max_bytes:
        pytest.skip("the fetcher refuses it")
    here, there = outcome(ThreadDecoder(LIMITS, VIEWS), data), outcome(pool, data)
    if isinstance(here, ImageError):
        assert isinstance(there, ImageError)
        assert (there.reason, str(there)) == (here.reason, str(here)[:MESSAGE_CHARACTERS])
        return
    assert isinstance(there, DecodedViews), there
    assert (there.frame_count, there.numbers) == (here.frame_count, here.numbers)
    for view in VIEWS:
        np.testing.assert_array_equal(there.views[view], here.views[view])
    np.testing.assert_array_equal(there.pixels, here.pixels)  # type: ignore[arg-type]


def outcome(decoder: ViewDecoder, data: bytes) -> DecodedViews | ImageError:
    try:
        return decoder.decode(data, wants_pixels=True)
    except ImageError as error:
        return error


def test_a_process_that_is_killed_while_nothing_is_decoded_costs_no_image(pool: DecoderPool, deaths: list[str]) -> None:
    pool.decode(encoded("JPEG"))
    for process in pool._processes._idle:
        os.kill(process.pid, signal.SIGKILL)
    deaths.clear()
    assert pool.decode(encoded("JPEG")).frame_count == 1
    assert deaths == ["died"]


def test_processes_that_are_killed_again_and_again_cost_no_image_that_is_decoded_once_more(pool: DecoderPool) -> None:
    """Killed with -9 in mid-stream: each image is decoded once more."""
    ending = threading.Event()

    def kill() -> None:
        while not ending.wait(0.3):
            for process in list(pool._processes._idle)[:1]:
                os.kill(process.pid, signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        data = encoded("JPEG")
        for _ in range(100):
            assert pool.decode(data).frame_count == 1
    finally:
        ending.set()
        killer.join()


def one_process(**options: Any) -> DecoderProcess:
    return DecoderProcess(
        LIMITS, VIEWS, MemoryBudget(10**9), max_bytes=10**6, memory_bytes=options.pop("memory_bytes", 10**8), **options
    )


def test_an_image_that_takes_too_much_processor_time_ends_its_process_and_is_to_blame(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    process = _hostile(monkeypatch, tmp_path, "while True: pass", cpu_seconds=1)
    with pytest.raises(DecoderDied, match="too much processor time") as death:
        process.decode(b"image", wants_pixels=False)
    assert death.value.blames_image
    process.close()


def test_an_image_at_which_a_decoder_hangs_ends_its_process_and_is_to_blame(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    process = _hostile(monkeypatch, tmp_path, "import time; time.sleep(60)", answer_seconds=3.0)
    with pytest.raises(DecoderDied, match="longer than 3 s") as death:
        process.decode(b"image", wants_pixels=False)
    assert death.value.blames_image
    process.close()


@pytest.mark.parametrize(
    "answer",
    [
        b"nonsense",
        b"{}",
        b'{"answer": {"kind": "decoded", "frame_count": 1, "numbers": [3]}}',
        b'{"answer": {"kind": "decoded", "frame_count": 900, "numbers": [0,1,2,3,4,5,6,7,8,9,10,11,12]}}',
        b'{"answer": {"kind": "decoded", "frame_count": 3, "numbers": [1, 1]}}',
        b'{"answer": {"kind": "decoded", "frame_count": 3000000000, "numbers": [0]}}',
        b'{"answer": {"kind": "decoded", "frame_count": 1' + b"0" * 5000 + b', "numbers": [0]}}',
        b'{"answer": ' + b"[" * 500_000,
        b'{"answer": {"kind": "refused", "reason": "no_such_reason", "message": ""}}',
        b'{"answer": {"kind": "refused", "reason": "fetch_failed", "message": "to be tried again"}}',
        json.dumps({"answer": {"kind": "refused", "reason": "undecodable_image", "message": "x" * 5000}}).encode(),
        b'{"answer": {"kind": "memory", "size": -1}}',
        b'{"answer": {"kind": "memory", "size": 1200000000}}',
    ],
)
def test_a_process_that_was_taken_over_cannot_lie_its_way_out(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, answer: bytes
) -> None:
    process = _hostile(monkeypatch, tmp_path, f"send(connection, {answer!r})")
    with pytest.raises(DecoderDied, match="senseless") as death:
        process.decode(b"image", wants_pixels=False)
    assert death.value.blames_image
    process.close()


def test_what_a_process_says_is_printable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    said = {"kind": "refused", "reason": "undecodable_image", "message": "\x1b[2J\nno"}
    process = _hostile(monkeypatch, tmp_path, f"send(connection, {json.dumps({'answer': said}).encode()!r})")
    with pytest.raises(ImageError) as error:
        process.decode(b"image", wants_pixels=False)
    assert str(error.value) == "\ufffd[2J\ufffdno"
    process.close()


@pytest.mark.parametrize(
    ("then", "how"),
    [
        ("connection.sendall((2**62).to_bytes(8, 'big'))", "senseless"),
        ("import time\n    for _ in range(100): connection.sendall(b'\\0'); time.sleep(0.5)", "longer than 2 s"),
    ],
)
def test_an_answer_that_is_endless_or_drips_ends_its_process(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, then: str, how: str
) -> None:
    process = _hostile(monkeypatch, tmp_path, then, answer_seconds=2.0)
    began = time.monotonic()
    with pytest.raises(DecoderDied, match=how) as death:
        process.decode(b"image", wants_pixels=False)
    assert death.value.blames_image
    assert time.monotonic() - began < 20
    process.close()


def test_a_process_cannot_shrink_the_memory_that_it_shares(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Reading what is no longer there would end the worker with SIGBUS."""
    shrink = "import os\n    try: os.ftruncate(shared, 0)\n    except OSError: send(connection, b'sealed')"
    process = _hostile(monkeypatch, tmp_path, shrink)
    with pytest.raises(DecoderDied, match="senseless"):
        process.decode(b"image", wants_pixels=False)
    process.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may look into a process that is not dumpable")
def test_a_process_has_no_credentials_and_only_its_socket() -> None:
    process = one_process()
    limits = Path(f"/proc/{process.pid}/limits").read_text()
    assert "Max open files            0 " in limits
    kinds = [str(entry.readlink()).partition(":")[0] for entry in Path(f"/proc/{process.pid}/fd").iterdir()]
    assert sorted(kinds) == ["/dev/null", "/dev/null", "/dev/null", "/memfd", "socket"]
    filtered = "Seccomp:\t2" in Path(f"/proc/{process.pid}/status").read_text()
    assert filtered is (syscall_filter.unavailable() is None)
    environment = Path(f"/proc/{process.pid}/environ").read_bytes().split(b"\0")
    names = {entry.partition(b"=")[0] for entry in environment if entry}
    ours = {"PATH", "LD_LIBRARY_PATH", "LANG", "TZ", "PYTHONPATH", "LC_CTYPE"} | sandbox_process._ADDED.keys()
    assert names <= {name.encode() for name in ours}
    process.close()
    assert not Path(f"/proc/{process.pid}").exists(), "it is not left as a zombie"


def test_the_shared_memory_of_a_large_image_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoder_process, "KEPT_BYTES", 1_048_576)
    process = one_process()
    noise = np.random.default_rng(1).integers(0, 255, (1500, 2500, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, "JPEG", quality=20)
    made = process.decode(buffer.getvalue(), wants_pixels=True)
    assert made.pixels is not None
    assert made.pixels.nbytes > 11_000_000
    smaps = Path("/proc/self/smaps").read_text().split("sluice-decoder")[1]
    (resident,) = [int(line.split()[1]) for line in smaps.splitlines() if line.startswith("Rss:")][:1]
    assert resident <= decoder_process.KEPT_BYTES // 1024
    process.close()


def test_without_a_process_the_image_waits_and_the_health_check_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    pool = DecoderPool(LIMITS, VIEWS, SETTINGS, clock=lambda: now[0])
    monkeypatch.setattr(decoder_process, "_CHILD", "worker.images.no_such_module")
    with pytest.raises(DecoderUnavailableError, match="no decoder process"):
        pool.decode(encoded("PNG"))
    assert "decoder processes cannot be started" in pool.health_problems()[0]
    monkeypatch.undo()
    with pytest.raises(DecoderUnavailableError):
        pool.decode(encoded("PNG"))
    now[0] = 6.0
    assert pool.decode(encoded("PNG")).frame_count == 1
    assert pool.health_problems() == ()
    pool.close()


@pytest.mark.parametrize("frame", [0, 2])
def test_one_frame_of_an_animation_can_be_asked_for(pool: DecoderPool, frame: int) -> None:
    data = encoded("WEBP", frames=3, lossless=True)
    with Image.open(io.BytesIO(data)) as image:
        image.seek(frame)
        expected = np.asarray(image.convert("RGB"))
    found = pool.decode(data, wants_pixels=True, frame=frame)
    assert found.numbers == (frame,)
    np.testing.assert_array_equal(found.pixels, expected)  # type: ignore[arg-type]
    with pytest.raises(ImageError, match="none of the number 3"):
        pool.decode(data, frame=3)


def test_small_jpegs_and_pngs_stay_on_the_thread_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = DecoderPool(LIMITS, VIEWS, SETTINGS.model_copy(update={"decoder_processes": "auto"}))
    used: list[str] = []
    monkeypatch.setattr(pool, "_in_process", lambda data, **_: used.append("process"))
    monkeypatch.setattr(pool._thread, "decode", lambda data, **_: used.append("thread"))
    for data in (encoded("JPEG"), encoded("PNG"), encoded("WEBP"), encoded("JPEG") + bytes(3_000_000), b"GIF89a"):
        pool.decode(data)
    assert used == ["thread", "thread", "process", "process", "process"]


def _hostile(monkeypatch: pytest.MonkeyPatch, folder: Path, then: str, **options: Any) -> DecoderProcess:
    """A process that does something else than decode once it is given an image."""
    (folder / "hostile_decoder.py").write_text(
        "import json\n"
        "from worker.images.sandbox import limit_cpu, receive, run, send\n"
        "def serve(connection, shared):\n"
        "    options = json.loads(receive(connection))\n"
        "    send(connection, b'')\n"
        "    receive(connection)\n"
        "    limit_cpu(options['cpu_seconds'])\n"
        f"    {then}\n"
        "run(serve)\n"
    )
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setattr(decoder_process, "_CHILD", "hostile_decoder")
    return one_process(**options)


def test_a_system_without_sealed_memory_decodes_on_threads_and_refuses_to_promise_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(decoder_pool, "SUPPORTED", False)
    pool = DecoderPool(LIMITS, VIEWS, SETTINGS.model_copy(update={"decoder_processes": "auto"}))
    assert pool.decode(encoded("WEBP")).frame_count == 1
    assert pool._processes._idle == []
    with pytest.raises(SettingsError, match="needs Linux"):
        DecoderPool(LIMITS, VIEWS, SETTINGS)
