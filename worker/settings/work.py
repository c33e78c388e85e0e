"""How images are fetched and judged, how much at once, and what is told of it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, PositiveFloat, PositiveInt, StringConstraints, model_validator

from worker.settings.image_format import DEFAULT_FORMATS, ImageFormat
from worker.settings.section import Section

RetryDelay = Annotated[float, Field(gt=0, le=86_400)]
"""Much shorter than the retention of the retry topics, which would delete what waits."""


class HttpSettings(Section):
    """Which images may be fetched over HTTP. Private, loopback, link-local and metadata addresses are refused, unless
    their host is listed."""

    allowed_hosts: tuple[str, ...] = ()
    """Hosts such as `cdn.example.com` or `*.example.com`; none: any public address."""
    max_redirects: Annotated[int, Field(ge=0, le=20)] = 3
    """Redirects that a request follows; each target is checked like the first address."""


class FileSettings(Section):
    """Which images may be read from the file system."""

    roots: tuple[Path, ...] = ()
    """Folders below which files may be read; none: no file on servers, any file in embedded mode."""


class ImageSettings(Section):
    """Limits for every image, wherever it comes from."""

    formats: tuple[ImageFormat, ...] = DEFAULT_FORMATS
    """What is decoded: jpeg, png, webp, gif, avif, bmp, jxl and heic; tiff and jpeg2000 where they are added."""

    max_bytes: PositiveInt = 128 * 1024 * 1024
    """Of the encoded image."""
    max_pixels: PositiveInt = 100_000_000
    animation_frames: Annotated[int, Field(ge=1, le=64)] = 8
    """Frames of an animation that are scored, spread evenly, with the first and the last among them."""
    animation_score: Literal["worst", "mean", "first"] = "worst"
    """What the scores of an animation are: those of its worst frame, their mean, or those of its first frame."""
    max_animation_pixels: PositiveInt = 500_000_000
    """Of all frames of an animation together. One of more fails, as a part of it would pass unseen."""
    fetch_memory_bytes: PositiveInt = 256 * 1024 * 1024
    """For encoded images of more than 8 MiB that are fetched and not yet decoded, of all threads together. Each counts
    twice while it is read."""
    decode_memory_bytes: PositiveInt = 1024**3
    """For decoding, of all threads of a process together. An image that alone takes more is decoded alone: 100
    megapixels take 0.6 GB as JPEG, 1.2 GB as PNG, 1.6 GB as WebP, and 2.4 GB as JPEG XL or JPEG 2000. So a worker takes
    what it takes when idle, at most both of these, and what the C library keeps of it: docs/images.md."""
    decoder_processes: Literal["off", "auto", "all"] = "auto"
    """Which images are decoded in processes of their own, so that one at which a decoder crashes, hangs or takes memory
    without end costs no other: `all`; `auto`, all but JPEG and PNG files of up to 2 MiB, whose decoding on a thread is
    faster; or none."""
    provenance: Literal["off", "text", "c2pa"] = "text"
    """What is read beside the picture, for verdicts, policies and the desk: nothing; texts of generators, IPTC's source
    type and whether there is a C2PA manifest; or `c2pa`, which verifies that manifest too and needs `sluice[c2pa]`. A
    policy that reads more is refused."""
    c2pa_trust: Path | None = None
    """A PEM file with the certificates of C2PA signers or their authorities. A valid manifest of theirs is `trusted`;
    without the file none is."""
    fetch_timeout_seconds: PositiveFloat = 10.0
    min_bytes_per_second: PositiveFloat = 10_000.0
    """A body that comes more slowly, after two seconds, is given up and tried again later."""

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.c2pa_trust is not None and self.provenance != "c2pa":
            raise ValueError("c2pa_trust is set, but provenance is not c2pa, so nothing is verified")
        return self


class EngineSettings(Section):
    """What runs the model. `auto` takes the first that starts: a verified engine of the `repository` that fits this
    host; torch, compiled, on the host's GPU; OpenVINO on its processors. Without a `repository`, `openvino` and `torch`
    compile the model's own graph."""

    backend: Literal["auto", "openvino", "tensorrt", "tensorrt-rtx", "torch"] = "auto"
    precision: Literal["fp32", "fp16", "bf16", "int8", "fp8"] | None = None
    """What to compute in; absent: with a repository the fastest that has passed the gate, else what the model was
    measured in (bf16 where its manifest says so, fp32 otherwise)."""
    repository: str | None = None
    """Where `sluice build` publishes engines: a folder or `s3://bucket/prefix`."""
    threads: PositiveInt | None = None
    """Processors that OpenVINO uses; absent: all that the process may use."""

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.backend.startswith("tensorrt") and self.repository is None:
            raise ValueError(f"backend {self.backend} needs repository, where sluice build has put engines")
        if self.backend == "torch" and self.threads:
            raise ValueError("threads is for openvino; remove it")
        if self.backend == "auto" and self.precision is not None:
            raise ValueError("precision goes with a backend that is named, not with auto")
        if self.precision in self._REFUSED.get(self.backend, ()):
            raise ValueError(f"backend {self.backend} does not compute in {self.precision}")
        if self.precision in ("int8", "fp8") and self.repository is None:
            raise ValueError(
                f"precision {self.precision} needs repository, where sluice build has put a quantised engine"
            )
        return self

    _REFUSED: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "openvino": ("fp16", "fp8"),
        "torch": ("fp16", "int8", "fp8"),
    }


class IntakeSettings(Section):
    """How much work is in flight, how it is batched, and how faults are retried."""

    prepare_threads: PositiveInt = 16
    """Threads that fetch and decode; more than processors, because they mostly wait for other servers."""
    max_records_in_flight: PositiveInt = 10_000
    """Records that were read and are not yet committed; partitions are paused beyond that."""
    max_bytes_in_flight: PositiveInt = 256 * 1024 * 1024
    """Bytes of those records."""
    max_records_per_partition: PositiveInt = 5_000
    """Of one partition, so that a slow one does not take the whole budget."""
    batch_size: PositiveInt = 16
    """Images in a batch for the engine, at most."""
    batch_wait_seconds: PositiveFloat = 0.02
    """How long a batch that is not full waits for more images."""
    batches_in_flight: PositiveInt = 4
    """Batches that the engine works on or has waiting."""
    commit_interval_seconds: PositiveFloat = 0.2
    """How often finished records are committed."""
    max_attempts: PositiveInt = 6
    """Attempts to fetch an image, the first included."""
    retry_base_seconds: PositiveFloat = 0.2
    """Backoff before the second attempt; it doubles with each attempt, with full jitter."""
    retry_max_seconds: PositiveFloat = 20.0
    """The longest backoff."""
    retry_deadline_seconds: PositiveFloat = 120.0
    """After this time no further attempt is made on an event that has to wait in its partition."""
    retry_hold_seconds: PositiveFloat = 30.0
    """How long an event whose image cannot be fetched may hold its partition. One that has to wait longer moves to a
    retry topic, and the partition goes on."""
    retry_delays_seconds: Annotated[tuple[RetryDelay, ...], Field(max_length=3)] = (60.0, 600.0, 3600.0)
    """How long an event waits in the first, second and third retry topic, at most a day; from the last it goes back
    into the last. Fewer delays use fewer topics; without any, events wait in their partition."""
    retry_topics_deadline_seconds: PositiveFloat = 6 * 3600.0
    """After this time no further attempt is made on an event that may move to a retry topic. Events whose S3 bucket is
    down wait until it answers."""
    retry_keeps_key_order: bool = False
    """Whether events of one key are judged in their order even where one has to wait. An event with a key then never
    moves to a retry topic: it holds its partition."""
    outage_seconds: PositiveFloat = 600.0
    """An image that its store has not delivered for this long goes to review, even while the store seems to be down."""
    engine_outage_seconds: PositiveFloat = 60.0
    """An engine that has answered no batch for this long makes the worker unhealthy."""
    drain_seconds: PositiveFloat = 20.0
    """How long a worker that was told to stop may finish what is in flight."""
    rebalance_seconds: PositiveFloat = 5.0
    """How long partitions that move to another worker may delay the group to finish what is in flight."""
    commit_patience_seconds: PositiveFloat = 60.0
    """A commit that has not returned after this time is given up: the member starts again from what is committed."""
    stall_seconds: PositiveFloat = 60.0
    """A partition that is assigned and behind without progress for this long makes the worker unhealthy."""

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.batch_size > self.max_records_in_flight:
            raise ValueError("batch_size is more than max_records_in_flight, so that no batch could ever be full")
        if self.retry_base_seconds > self.retry_max_seconds:
            raise ValueError("retry_base_seconds is more than retry_max_seconds")
        if list(self.retry_delays_seconds) != sorted(self.retry_delays_seconds):
            raise ValueError("retry_delays_seconds must not become shorter from one topic to the next")
        return self


class TelemetrySettings(Section):
    """Logs, metrics and the health check."""

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    log_format: Literal["json", "console"] = "json"
    host: str = "127.0.0.1"
    """The address that `/metrics` and `/healthz` listen on."""
    metrics_port: Annotated[int, Field(ge=0, le=65535)] | None = None
    """Their port; absent: neither is served."""
    top_tenants: Annotated[int, Field(ge=0, le=200)] = 20
    """So many tenants, those with most events, have series of `sluice_tenant_events_total`; all others are `other`."""
    traces_endpoint: Annotated[str, StringConstraints(pattern=r"^https?://[^\s@]+$", max_length=500)] | None = None
    """Where OpenTelemetry traces are sent by OTLP over HTTP, such as `http://collector:4318/v1/traces`; needs
    `sluice[otel]`. Absent: nothing is traced. docs/tracing.md"""
    traces_share: Annotated[float, Field(ge=0, le=1)] = 0.01
    """The share of events that are traced, of those whose record has no `traceparent` header. With the header, its
    sampled flag decides."""
