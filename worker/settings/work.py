"""Settings of fetching, decoding, judging and telemetry."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, PositiveFloat, PositiveInt, StringConstraints, model_validator

from worker.settings.image_format import DEFAULT_FORMATS, ImageFormat
from worker.settings.section import Section

RetryDelay = Annotated[float, Field(gt=0, le=86_400)]
"""At most a day, which is much shorter than the retention of the retry topics: Kafka must not delete waiting events."""


class HttpSettings(Section):
    """Which images may be fetched over HTTP. Private, loopback, link-local and metadata addresses are refused unless
    their host is listed."""

    allowed_hosts: tuple[str, ...] = ()
    """Allowed hosts, such as `cdn.example.com` or `*.example.com`. Default: any public address."""
    max_redirects: Annotated[int, Field(ge=0, le=20)] = 3
    """Maximum redirects of a request. Each target is checked like the first address."""


class FileSettings(Section):
    """Which images may be read from the file system."""

    roots: tuple[Path, ...] = ()
    """Folders below which files may be read. Default: no files when Sluice runs on Kafka, any file in embedded mode."""


class ImageSettings(Section):
    """Limits for every image, from any source."""

    formats: tuple[ImageFormat, ...] = DEFAULT_FORMATS
    """Formats that are decoded. `tiff` and `jpeg2000` must be added to be read."""

    max_bytes: PositiveInt = 128 * 1024 * 1024
    """Maximum size of an encoded image."""
    max_pixels: PositiveInt = 100_000_000
    """Maximum pixels (width times height) of an image or a frame."""
    animation_frames: Annotated[int, Field(ge=1, le=64)] = 8
    """How many frames of an animation are scored. They are spread evenly and include the first and the last."""
    animation_score: Literal["worst", "mean", "first"] = "worst"
    """The scores of an animation: those of its worst frame, the mean of its frames, or those of its first frame."""
    max_animation_pixels: PositiveInt = 500_000_000
    """Maximum pixels of all frames of an animation together. A larger one fails, because a part of it would not be
    scored."""
    fetch_memory_bytes: PositiveInt = 256 * 1024 * 1024
    """Memory for fetched images of more than 8 MiB that are not decoded yet, for all threads together. Each image
    counts twice while it is read."""
    decode_memory_bytes: PositiveInt = 1024**3
    """Memory for decoding, for all threads of a process together. An image that needs more is decoded alone: 100
    megapixels need 0.6 GB as JPEG, 1.2 GB as PNG, 1.6 GB as WebP, and 2.4 GB as JPEG XL or JPEG 2000. A worker's
    maximum memory is what it uses when idle, plus this limit, plus `fetch_memory_bytes`, plus what the C library keeps
    for reuse (docs/images.md)."""
    decoder_processes: Literal["off", "auto", "all"] = "auto"
    """Which images are decoded in separate processes, so that a decoder that crashes, hangs or runs out of memory does
    not affect other images. `auto`: all except JPEG and PNG files of up to 2 MiB, which decode faster on a thread.
    `all`: every image. `off`: none."""
    provenance: Literal["off", "text", "c2pa"] = "text"
    """What is read besides the pixels, for verdicts, policies and the desk. `off`: nothing. `text`: generator text, the
    IPTC source type and whether there is a C2PA manifest. `c2pa`: the same, and C2PA manifests are verified; needs
    `sluice[c2pa]`. A policy that reads more is refused."""
    c2pa_trust: Path | None = None
    """A PEM file with the certificates of trusted C2PA signers or their CAs. A valid manifest of theirs is `trusted`.
    Default: no manifest is."""
    fetch_timeout_seconds: PositiveFloat = 10.0
    """Timeout of a fetch from S3 or HTTP."""
    min_bytes_per_second: PositiveFloat = 10_000.0
    """A body that arrives more slowly than this after two seconds is aborted and fetched again later."""

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.c2pa_trust is not None and self.provenance != "c2pa":
            raise ValueError("c2pa_trust is set, but provenance is not c2pa, so no manifest is verified")
        return self


class EngineSettings(Section):
    """The engine that runs the model. `auto` uses the first one that starts: a verified engine from `repository` that
    fits this host; torch, compiled, on the host's GPU; OpenVINO on its CPUs. Without a `repository`, `openvino` and
    `torch` compile the model's own graph."""

    backend: Literal["auto", "openvino", "tensorrt", "tensorrt-rtx", "torch"] = "auto"
    """Which engine to use."""
    precision: Literal["fp32", "fp16", "bf16", "int8", "fp8"] | None = None
    """The precision to compute in. Default: with a repository, the fastest that passed the parity gate; otherwise the
    precision that the model was measured in (bf16 if its manifest says so, else fp32)."""
    repository: str | None = None
    """The model repository where `sluice build` publishes engines: a folder or `s3://bucket/prefix`."""
    threads: PositiveInt | None = None
    """CPUs that OpenVINO uses. Default: all that the process may use."""

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.backend.startswith("tensorrt") and self.repository is None:
            raise ValueError(f"backend {self.backend} needs engine.repository, where sluice build published them")
        if self.backend == "torch" and self.threads:
            raise ValueError("threads is only for openvino; remove it")
        if self.backend == "auto" and self.precision is not None:
            raise ValueError("precision needs a named backend; it cannot be combined with auto")
        if self.precision in self._REFUSED.get(self.backend, ()):
            raise ValueError(f"backend {self.backend} does not compute in {self.precision}")
        if self.precision in ("int8", "fp8") and self.repository is None:
            raise ValueError(
                f"precision {self.precision} needs engine.repository with a quantised engine made by sluice build"
            )
        return self

    _REFUSED: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "openvino": ("fp16", "fp8"),
        "torch": ("fp16", "int8", "fp8"),
    }


class IntakeSettings(Section):
    """How much work is in flight, how it is batched, and how failures are retried."""

    prepare_threads: PositiveInt = 16
    """Threads that fetch and decode. Use more threads than CPUs, because they mostly wait for other servers."""
    max_records_in_flight: PositiveInt = 10_000
    """Maximum records that were read and are not committed yet. Partitions are paused beyond that."""
    max_bytes_in_flight: PositiveInt = 256 * 1024 * 1024
    """Maximum bytes of those records."""
    max_records_per_partition: PositiveInt = 5_000
    """Maximum records in flight of one partition, so that a slow partition does not use the whole limit."""
    batch_size: PositiveInt = 16
    """Maximum images in a batch for the engine."""
    batch_wait_seconds: PositiveFloat = 0.02
    """How long a batch that is not full waits for more images."""
    batches_in_flight: PositiveInt = 4
    """Maximum batches that the engine works on or has queued."""
    commit_interval_seconds: PositiveFloat = 0.2
    """How often finished records are committed."""
    max_attempts: PositiveInt = 6
    """Maximum attempts to fetch an image, including the first."""
    retry_base_seconds: PositiveFloat = 0.2
    """Backoff before the second attempt. It doubles with each attempt, with full jitter."""
    retry_max_seconds: PositiveFloat = 20.0
    """Maximum backoff."""
    retry_deadline_seconds: PositiveFloat = 120.0
    """No further attempt after this time, for an event that waits in its partition."""
    retry_hold_seconds: PositiveFloat = 30.0
    """How long an event whose image cannot be fetched may block its partition. After that it moves to a retry topic."""
    retry_delays_seconds: Annotated[tuple[RetryDelay, ...], Field(max_length=3)] = (60.0, 600.0, 3600.0)
    """Delays of the first, second and third retry topic, each at most a day. After the last one an event goes back to
    the last topic. With fewer delays fewer topics are used; with none, events wait in their partition."""
    retry_topics_deadline_seconds: PositiveFloat = 6 * 3600.0
    """No further attempt after this time, for an event that may move to a retry topic. Events whose S3 bucket is down
    wait until it answers."""
    retry_keeps_key_order: bool = False
    """Keep events with the same key in order even when one has to wait. Such an event never moves to a retry topic, so
    it blocks its partition."""
    outage_seconds: PositiveFloat = 600.0
    """An image that its store has not delivered for this long goes to review, even while the store seems to be down."""
    engine_outage_seconds: PositiveFloat = 60.0
    """The worker becomes unhealthy when its engine has answered no batch for this long."""
    drain_seconds: PositiveFloat = 20.0
    """How long a stopping worker may take to finish what is in flight."""
    rebalance_seconds: PositiveFloat = 5.0
    """How long a rebalance may wait for this worker to finish what is in flight in partitions that it gives up."""
    commit_patience_seconds: PositiveFloat = 60.0
    """Timeout of a commit. After it the worker rejoins the group and continues from the committed offsets."""
    stall_seconds: PositiveFloat = 60.0
    """The worker becomes unhealthy when an assigned partition has unread records and makes no progress for this
    long."""

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.batch_size > self.max_records_in_flight:
            raise ValueError("batch_size is more than max_records_in_flight, so no batch could be full")
        if self.retry_base_seconds > self.retry_max_seconds:
            raise ValueError("retry_base_seconds is more than retry_max_seconds")
        if list(self.retry_delays_seconds) != sorted(self.retry_delays_seconds):
            raise ValueError("retry_delays_seconds: a delay must not be shorter than the one before it")
        return self


class TelemetrySettings(Section):
    """Logs, metrics and the health check."""

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """Minimum level of log messages."""
    log_format: Literal["json", "console"] = "json"
    """`json` for log collectors, `console` for people."""
    host: str = "127.0.0.1"
    """The address that `/metrics` and `/healthz` listen on."""
    metrics_port: Annotated[int, Field(ge=0, le=65535)] | None = None
    """Their port; 0 takes any free one. Default: neither is served."""
    top_tenants: Annotated[int, Field(ge=0, le=200)] = 20
    """How many tenants, those with the most events, have their own series of `sluice_tenant_events_total`. All others
    are counted as `other`."""
    top_generators: Annotated[int, Field(ge=0, le=100)] = 12
    """How many generators have their own series. A tenant and a generator that occur together have up to 17 series in a
    worker."""
    traces_endpoint: Annotated[str, StringConstraints(pattern=r"^https?://[^\s@]+$", max_length=500)] | None = None
    """Where OpenTelemetry traces are sent (OTLP over HTTP), such as `http://collector:4318/v1/traces`. Needs
    `sluice[otel]`. Default: no tracing. See docs/tracing.md."""
    traces_share: Annotated[float, Field(ge=0, le=1)] = 0.01
    """Share of events that are traced, of those whose record has no `traceparent` header. With the header, its sampled
    flag decides."""
