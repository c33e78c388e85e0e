"""From an image's bytes to its provenance."""

import hashlib
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import structlog

from schemas.provenance import NO_PROVENANCE, Provenance
from worker.images.formats import HEAD_BYTES, sniff
from worker.images.provenance.c2pa_process import C2paReport, C2paVerifier, ProvenanceError
from worker.images.provenance.generators import recognise
from worker.images.provenance.metadata import read_metadata
from worker.images.provenance.plain_text import plain
from worker.images.provenance.xmp import read_xmp
from worker.settings import ImageSettings
from worker.settings.image_format import ImageFormat

log = structlog.get_logger(__name__)

MANIFEST_BYTES: Final = 32 * 1024 * 1024
"""A larger manifest is not verified. Most have less than 1 MiB; thumbnails of ingredients make the large ones."""
_VERSION: Final = 1
"""Counted up when files come to be read otherwise, so that no earlier result is found in the cache."""

_MEDIA_TYPES: Final[Mapping[ImageFormat, str]] = {
    ImageFormat.JPEG: "image/jpeg",
    ImageFormat.PNG: "image/png",
    ImageFormat.WEBP: "image/webp",
    ImageFormat.GIF: "image/gif",
    ImageFormat.AVIF: "image/avif",
    ImageFormat.HEIC: "image/heic",
    ImageFormat.JXL: "image/jxl",
    ImageFormat.TIFF: "image/tiff",
}


class ProvenanceReader:
    """Reads texts and, with a verifier, C2PA manifests. Safe for several threads."""

    def __init__(self, verifier: C2paVerifier | None = None, *, trust_pem: str | None = None) -> None:
        """`trust_pem` is what the verifier trusts."""
        self._verifier = verifier
        self.identity = f"text-{_VERSION}"
        """Readers of one identity read the same from the same bytes: a part of the cache's keys."""
        if verifier is not None:
            self.identity = f"c2pa-{_VERSION}-{hashlib.sha256((trust_pem or '').encode()).hexdigest()[:16]}"

    def read(self, data: bytes) -> Provenance:
        """What a file says that was decoded without a fault. Raises nothing: a bug must not lose the image, and a file
        whose texts cannot be read says nothing.
        """
        try:
            return self._read(data)
        except Exception:
            log.exception("provenance_not_read", size=len(data))
            return NO_PROVENANCE

    def close(self) -> None:
        if self._verifier is not None:
            self._verifier.close()

    def _read(self, data: bytes) -> Provenance:
        image_format = sniff(data[:HEAD_BYTES])
        if image_format is None:
            return NO_PROVENANCE
        metadata = read_metadata(data, image_format)
        xmp = read_xmp(metadata.xmp) if metadata.xmp else {}
        if not (metadata.manifest_bytes or metadata.texts or xmp):
            return NO_PROVENANCE
        c2pa = self._c2pa(data, image_format, metadata.manifest_bytes)
        made = recognise(xmp | metadata.texts)
        source_type = _last_part(xmp.get("source_type"))
        return Provenance(
            found=c2pa.state != "absent" or made is not None or source_type is not None,
            c2pa=c2pa.state,
            c2pa_generator=plain(c2pa.generator),
            c2pa_signer=plain(c2pa.signer),
            c2pa_source_type=_last_part(c2pa.source_type),
            source_type=source_type,
            software=plain(metadata.texts.get("Software")) or plain(xmp.get("software")),
            generator=None if made is None else made.generator,
            model=None if made is None else made.model,
            sampler=None if made is None else made.sampler,
            steps=None if made is None else made.steps,
            seed=None if made is None else made.seed,
        )

    def _c2pa(self, data: bytes, image_format: ImageFormat, manifest_bytes: int) -> C2paReport:
        if not manifest_bytes:
            return C2paReport("absent")
        if self._verifier is None or manifest_bytes > MANIFEST_BYTES:
            return C2paReport("unverified")
        return self._verifier.verify(data, _MEDIA_TYPES[image_format])


def open_reader(settings: ImageSettings) -> ProvenanceReader | None:
    """The reader that the settings ask for; None where provenance is off. Raises ProvenanceError."""
    if settings.provenance == "off":
        return None
    if settings.provenance == "text":
        return ProvenanceReader()
    trust_pem = None if settings.c2pa_trust is None else _certificates(settings.c2pa_trust)
    return ProvenanceReader(C2paVerifier(trust_pem), trust_pem=trust_pem)


def _certificates(path: Path) -> str:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ProvenanceError(f"images.c2pa_trust: {path}: cannot be read as text: {error}") from None
    if find_spec("c2pa") is not None:  # its absence is told by the verifier
        from cryptography import x509  # comes with it

        try:
            x509.load_pem_x509_certificates(text.encode())
        except ValueError as error:  # the library would trust nobody, in silence
            raise ProvenanceError(f"images.c2pa_trust: {path}: not PEM certificates: {error}") from None
    return text


def _last_part(value: str | None) -> str | None:
    """`trainedAlgorithmicMedia` of `http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia`."""
    return plain((value or "").rstrip("/").rpartition("/")[2])
