"""C2PA manifests are verified off the network, in a process that hostile files cannot take down with them."""

import os
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from PIL import Image

pytest.importorskip("c2pa")

from schemas import Provenance
from tests.unit.images.made_images import encoded, picture
from tests.unit.images.signed_images import GENERATOR, SIGNER, counting_server, identity, signed
from worker.images import syscall_filter
from worker.images.provenance import c2pa_process
from worker.images.provenance.c2pa_process import C2paReport, C2paVerifier, ProvenanceError
from worker.images.provenance.reader import ProvenanceReader, open_reader
from worker.images.sandbox import receive
from worker.settings import ImageSettings

MEDIA_TYPES = {
    "JPEG": "image/jpeg",
    "PNG": "image/png",
    "WEBP": "image/webp",
    "AVIF": "image/avif",
    "GIF": "image/gif",
    "TIFF": "image/tiff",
}


@pytest.fixture(scope="module")
def verifier() -> Iterator[C2paVerifier]:
    opened = C2paVerifier()
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def trusting() -> Iterator[C2paVerifier]:
    opened = C2paVerifier(identity().authority)
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def jpeg() -> bytes:
    return signed(encoded(picture(), "JPEG"), "image/jpeg")


@pytest.mark.parametrize("kind", MEDIA_TYPES)
def test_a_manifest_is_found_in_every_format_and_verified(
    kind: str, verifier: C2paVerifier, trusting: C2paVerifier
) -> None:
    plain = encoded(picture(), kind)
    data = signed(plain, MEDIA_TYPES[kind])
    said = Provenance(
        found=True,
        c2pa="valid",
        c2pa_generator=f"{GENERATOR} 3",
        c2pa_signer=SIGNER,
        c2pa_source_type="trainedAlgorithmicMedia",
    )
    assert ProvenanceReader(verifier).read(data) == said
    assert ProvenanceReader(trusting).read(data) == said.model_copy(update={"c2pa": "trusted"})
    assert ProvenanceReader().read(data) == Provenance(found=True, c2pa="unverified")
    assert ProvenanceReader(verifier).read(plain) == Provenance()


@pytest.mark.parametrize("where", ["picture", "manifest"])
def test_a_changed_byte_makes_the_manifest_invalid(where: str, verifier: C2paVerifier, jpeg: bytes) -> None:
    at = len(jpeg) - 20 if where == "picture" else jpeg.index(b"c2pa.created") + 3
    changed = bytearray(jpeg)
    changed[at] ^= 1
    assert ProvenanceReader(verifier).read(bytes(changed)).c2pa == "invalid"


def test_a_manifest_of_another_image_is_invalid(verifier: C2paVerifier, jpeg: bytes) -> None:
    other = encoded(Image.new("RGB", (48, 32), "red"), "JPEG")
    start, end = jpeg.index(b"\xff\xeb"), jpeg.index(b"\xff\xdb")
    moved = other[:20] + jpeg[start:end] + other[20:]
    assert ProvenanceReader(verifier).read(moved).c2pa == "invalid"


def test_truncated_and_nonsense_manifests_are_invalid(verifier: C2paVerifier, jpeg: bytes) -> None:
    start = jpeg.index(b"\xff\xeb")
    length = int.from_bytes(jpeg[start + 2 : start + 4], "big")
    content = jpeg[start + 4 : start + 2 + length]
    rest = jpeg[start + 2 + length :]
    for broken in (
        content[:100],
        content[: len(content) // 2],
        content[:60] + bytes(200),
        content[:40] + b"\xff" * 999,
    ):
        segment = b"\xff\xeb" + struct.pack(">H", len(broken) + 2) + broken
        assert ProvenanceReader(verifier).read(jpeg[:start] + segment + rest).c2pa == "invalid"


def test_other_jumbf_than_a_manifest_is_none(verifier: C2paVerifier) -> None:
    plain = encoded(picture(), "JPEG")
    box = b"JP\0\1\0\0\0\1" + struct.pack(">I4sI4s", 40, b"jumb", 32, b"jumd") + b"json" + bytes(20)
    data = plain[:2] + b"\xff\xeb" + struct.pack(">H", len(box) + 2) + box + plain[2:]
    assert ProvenanceReader(verifier).read(data) == Provenance()


def test_a_manifest_elsewhere_is_not_fetched(verifier: C2paVerifier) -> None:
    with counting_server() as (address, asked):
        data = signed(encoded(picture(), "JPEG"), "image/jpeg", remote_url=address)
        assert address.encode() in data
        report = verifier.verify(data, "image/jpeg")
    assert asked == []
    assert report.state in ("absent", "invalid")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may look into a process that is not dumpable")
def test_the_process_has_no_credentials_and_opens_nothing(monkeypatch: pytest.MonkeyPatch, jpeg: bytes) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    verifier = C2paVerifier()
    try:
        pid = verifier._processes._idle[0].pid
        assert b"secret" not in Path(f"/proc/{pid}/environ").read_bytes()
        assert "Max open files            0 " in Path(f"/proc/{pid}/limits").read_text()
        filtered = "Seccomp:\t2" in Path(f"/proc/{pid}/status").read_text()
        assert filtered is (syscall_filter.unavailable() is None)
        assert verifier.verify(jpeg, "image/jpeg").state == "valid"
    finally:
        verifier.close()


def test_a_process_that_dies_costs_one_answer(jpeg: bytes) -> None:
    verifier = C2paVerifier()
    try:
        os.kill(verifier._processes._idle[0].pid, signal.SIGKILL)
        assert verifier.verify(jpeg, "image/jpeg") == C2paReport("unverified")
        assert verifier.verify(jpeg, "image/jpeg").state == "valid"
    finally:
        verifier.close()


def test_a_process_that_cannot_be_started_leaves_the_manifest_unverified(
    jpeg: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    verifier = C2paVerifier()
    verifier._processes._idle.pop().close()
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    assert ProvenanceReader(verifier).read(jpeg) == Provenance(found=True, c2pa="unverified")
    with pytest.raises(ProvenanceError, match=r"cannot be started: .*No such file"):
        C2paVerifier()


@pytest.mark.parametrize(
    "answer", [b'"valid"', b'{"state": "sure"}', b'{"state": "valid", "signer": 1}', b"[" * 100_000]
)
def test_a_process_that_was_taken_over_cannot_break_the_worker(
    answer: bytes, jpeg: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    verifier = C2paVerifier()
    process = verifier._processes._idle[0]
    monkeypatch.setattr(process, "receive", lambda: answer)
    assert verifier.verify(jpeg, "image/jpeg") == C2paReport("unverified")
    assert process._process.returncode is not None
    verifier.close()


def test_a_process_that_hangs_is_ended(jpeg: bytes) -> None:
    verifier = C2paVerifier()
    try:
        process = verifier._processes._idle[0]
        process._answer_seconds = 0.2
        os.kill(process._process.pid, signal.SIGSTOP)
        assert verifier.verify(jpeg, "image/jpeg") == C2paReport("unverified")
        assert process._process.returncode == -signal.SIGKILL
        assert verifier.verify(jpeg, "image/jpeg").state == "valid"
    finally:
        verifier.close()


def test_the_kernel_ends_what_computes_too_long() -> None:
    code = "from worker.images.sandbox import limit_cpu; limit_cpu(0)\nwhile True: pass"
    ended = subprocess.run([sys.executable, "-c", code], timeout=60, check=False, env=os.environ | {"PYTHONPATH": "."})
    assert -ended.returncode in (signal.SIGXCPU, signal.SIGKILL)


def test_a_file_that_takes_too_much_memory_is_not_verified(jpeg: bytes) -> None:
    verifier = C2paVerifier(memory_bytes=c2pa_process.MEMORY_BYTES // 4)
    try:
        assert verifier.verify(jpeg + bytes(200_000_000), "image/jpeg") == C2paReport("unverified")
        assert verifier.verify(jpeg, "image/jpeg").state == "valid"
    finally:
        verifier.close()


def test_a_manifest_beyond_the_limit_is_not_verified(
    verifier: C2paVerifier, jpeg: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.images.provenance.reader.MANIFEST_BYTES", 100)
    assert ProvenanceReader(verifier).read(jpeg).c2pa == "unverified"


def test_what_a_manifest_says_is_plain_text(verifier: C2paVerifier) -> None:
    data = signed(encoded(picture(), "PNG"), "image/png", generator="<b>\x1b[31m\u202egen\n" + "x" * 5000)
    said = ProvenanceReader(verifier).read(data).c2pa_generator
    assert said is not None
    assert said.startswith("<b>[31mgen xxx")
    assert len(said) == 200


def test_certificates_that_are_none_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "trust.pem"
    settings = ImageSettings(provenance="c2pa", c2pa_trust=file)
    with pytest.raises(ProvenanceError, match=r"trust\.pem: cannot be read"):
        open_reader(settings)
    for text in ("none", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"):
        file.write_text(text)
        with pytest.raises(ProvenanceError, match=r"images\.c2pa_trust: .*trust\.pem: not PEM certificates"):
            open_reader(settings)
    with pytest.raises(ProvenanceError, match="the C2PA library does not take these certificates"):
        C2paVerifier("-----BEGIN CERTIFICATE-----\nxx\n-----END CERTIFICATE-----\n")


def test_a_trust_list_in_a_file_is_used(tmp_path: Path, jpeg: bytes) -> None:
    file = tmp_path / "trust.pem"
    file.write_text(identity().authority)
    reader = open_reader(ImageSettings(provenance="c2pa", c2pa_trust=file))
    assert reader is not None
    with closing(reader):
        assert reader.read(jpeg).c2pa == "trusted"


def test_without_the_package_the_message_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(c2pa_process, "find_spec", lambda _: None)
    with pytest.raises(ProvenanceError, match=r"pip install 'sluice\[c2pa\]', or set images\.provenance to text"):
        C2paVerifier()


def test_readers_that_trust_others_are_told_apart(trusting: C2paVerifier, verifier: C2paVerifier) -> None:
    names = {
        ProvenanceReader().identity,
        ProvenanceReader(verifier).identity,
        ProvenanceReader(trusting, trust_pem=identity().authority).identity,
    }
    assert len(names) == 3
    assert not any(":" in name for name in names)


def test_a_socket_that_ends_early_is_an_end() -> None:
    ours, theirs = socket.socketpair()
    with ours:
        theirs.sendall((10).to_bytes(8, "big") + b"short")
        theirs.close()
        with pytest.raises(EOFError):
            receive(ours)
