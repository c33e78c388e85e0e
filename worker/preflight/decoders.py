"""Whether images can be decoded in processes of their own here, and how well these are confined."""

import io
from collections.abc import Iterator
from contextlib import closing

from PIL import Image

from worker.images import syscall_filter
from worker.images.decode import DecodeLimits
from worker.images.decoder_pool import DecoderPool
from worker.images.decoder_process import SUPPORTED
from worker.images.errors import DecoderUnavailableError, ImageError
from worker.preflight.finding import CheckStatus, Finding
from worker.settings import ImageSettings, SettingsError

_CHECK = "decoder processes"


def check_decoders(settings: ImageSettings) -> Iterator[Finding]:
    """Starts such a process and decodes an image in it. Nothing where the settings want none. Raises nothing."""
    if settings.decoder_processes == "off":
        return
    if settings.decoder_processes == "auto" and not SUPPORTED:
        yield Finding(_CHECK, CheckStatus.UNKNOWN, "this system has none: images are decoded on threads")
        return
    try:
        with closing(DecoderPool(DecodeLimits.of(settings), {}, _always(settings))) as pool:
            pool.decode(_image())
    except SettingsError as error:
        yield Finding(_CHECK, CheckStatus.WRONG, str(error))
    except (DecoderUnavailableError, ImageError) as error:
        advice = "fix it, or set images.decoder_processes to off if all images are trusted"
        yield Finding(_CHECK, CheckStatus.WRONG, str(error), advice)
    else:
        unfiltered = syscall_filter.unavailable()
        if unfiltered is None:
            yield Finding(_CHECK, CheckStatus.OK, "an image was decoded in one; seccomp filters its system calls")
        else:
            advice = "use Linux with seccomp on x86-64 or aarch64, or limit what the worker's user may reach"
            yield Finding(_CHECK, CheckStatus.WRONG, f"they run without a seccomp filter: {unfiltered}", advice)


def _always(settings: ImageSettings) -> ImageSettings:
    return settings.model_copy(update={"decoder_processes": "all"})


def _image() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "PNG")
    return buffer.getvalue()
