"""Reads the weights of a TensorFlow.js layers model as the npm package `nsfwjs` ships them.

The package holds each model as two JavaScript bundles: `model.min.js`, whose object literal names every weight, its
shape and its quantisation, and `group1-shardNofM.min.js`, base64 of the packed values. Nothing here runs JavaScript.
"""

import base64
import hashlib
import json
import re
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

PACKAGE = "nsfwjs-4.3.0"
PACKAGE_SHA256 = "4496790efc9bdc6f3e85a826a8e482c1fa1e9db4b3d18c095e98cc0c73cfb12f"
"""Digest of the package, as `npm pack nsfwjs@4.3.0` fetches it."""


class BackboneError(Exception):
    """The package of backbone weights is not what it should be."""


def read_weights(package: Path, model: str) -> dict[str, NDArray[np.float32]]:
    """The weights of `model` (a folder below dist/models), by Keras name.

    Quantised values are restored as `q * scale + min`, as tfjs-core's `io/io_utils.ts` does. Raises BackboneError.
    """
    digest = hashlib.sha256(package.read_bytes()).hexdigest()
    if digest != PACKAGE_SHA256:
        raise BackboneError(
            f"{package}: sha256 is {digest}, expected {PACKAGE_SHA256}; fetch it with `npm pack nsfwjs@4.3.0`"
        )
    folder = f"package/dist/models/{model}"
    with tarfile.open(package, "r:gz") as archive:
        manifest = _weights_manifest(_member(archive, f"{folder}/model.min.js"))
        weights: dict[str, NDArray[np.float32]] = {}
        for group in manifest:
            packed = b"".join(_shard(_member(archive, f"{folder}/{path}.min.js")) for path in group["paths"])
            weights |= _unpack(packed, group["weights"])
    return weights


def _member(archive: tarfile.TarFile, name: str) -> str:
    try:
        file = archive.extractfile(name)
    except KeyError as error:
        raise BackboneError(f"the package has no file {name}") from error
    if file is None:
        raise BackboneError(f"{name} in the package is not a file")
    return file.read().decode()


def _weights_manifest(bundle: str) -> list[dict[str, Any]]:
    """The array literal after `weightsManifest:`, made JSON: quoted keys, leading zeros, `!0` and `!1` spelled out."""
    start = bundle.index("weightsManifest:") + len("weightsManifest:")
    depth = 0
    for end in range(start, len(bundle)):
        depth += (bundle[end] in "[{") - (bundle[end] in "]}")
        if depth == 0:
            break
    literal = re.sub(r"([{,])([A-Za-z_]\w*):", r'\1"\2":', bundle[start : end + 1])
    literal = re.sub(r"(?<=[:\[,])(-?)\.(\d)", r"\g<1>0.\2", literal)
    manifest: list[dict[str, Any]] = json.loads(literal.replace(":!0", ":true").replace(":!1", ":false"))
    return manifest


def _shard(bundle: str) -> bytes:
    found = re.search(r'exports="([A-Za-z0-9+/=]+)"', bundle)
    if found is None:
        raise BackboneError("a weight shard of the package holds no base64 text")
    return base64.b64decode(found.group(1))


def _unpack(packed: bytes, entries: list[dict[str, Any]]) -> dict[str, NDArray[np.float32]]:
    weights = {}
    offset = 0
    for entry in entries:
        quantization = entry.get("quantization")
        dtype = np.dtype(quantization["dtype"] if quantization else entry["dtype"])
        count = int(np.prod(entry["shape"]))
        values = np.frombuffer(packed, dtype, count, offset).astype(np.float32)
        offset += count * dtype.itemsize
        if quantization:
            values = values * np.float32(quantization["scale"]) + np.float32(quantization["min"])
        weights[entry["name"]] = values.reshape(entry["shape"])
    if offset != len(packed):
        raise BackboneError(f"the weight shards hold {len(packed)} bytes, the manifest describes {offset}")
    return weights
