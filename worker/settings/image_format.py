"""The image formats that Sluice can read."""

from enum import StrEnum


class ImageFormat(StrEnum):
    """A format by the name that `images.formats` gives it."""

    JPEG = "jpeg"
    PNG = "png"
    WEBP = "webp"
    GIF = "gif"
    AVIF = "avif"
    BMP = "bmp"
    JXL = "jxl"
    HEIC = "heic"
    TIFF = "tiff"
    JPEG2000 = "jpeg2000"

    @property
    def label(self) -> str:
        """The display name: `JPEG XL`."""
        return _LABELS.get(self, self.value.upper())


_LABELS = {
    ImageFormat.WEBP: "WebP",
    ImageFormat.JXL: "JPEG XL",
    ImageFormat.HEIC: "HEIC/HEIF",
    ImageFormat.JPEG2000: "JPEG 2000",
}

DEFAULT_FORMATS = (
    ImageFormat.JPEG,
    ImageFormat.PNG,
    ImageFormat.WEBP,
    ImageFormat.GIF,
    ImageFormat.AVIF,
    ImageFormat.BMP,
    ImageFormat.JXL,
    ImageFormat.HEIC,
)
"""The formats that browsers show and phones send. TIFF and JPEG 2000 are off by default: no browser shows them, and
their decoders have had more memory faults than the others.
"""
