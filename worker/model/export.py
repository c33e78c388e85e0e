"""Exports the trained network for serving: an ONNX graph, a file of heads and a manifest."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

from safetensors.numpy import save as save_tensors

from worker.model.data import DATA_SETS
from worker.model.evaluate import AgreementReport
from worker.model.heads import ANCHORS, QualityHeads
from worker.model.network import FEATURES, STREAMS, VIEWS, MstLite
from worker.model.onnx_graph import OPSET, to_numpy, towers_graph
from worker.scoring.manifest import (
    MANIFEST_NAME,
    GraphSpec,
    HeadsSpec,
    Measurement,
    ModelManifest,
    ParityLimits,
    TowerSpec,
)
from worker.scoring.openvino_graph import computes_bf16

VERSION = "0.4.0"


def export_model(network: MstLite, reports: Sequence[AgreementReport], folder: Path) -> ModelManifest:
    """Writes graph, heads and manifest of the trained network into the folder."""
    manifest = ModelManifest(
        name="mst-lite",
        version=VERSION,
        views=VIEWS,
        towers=tuple(TowerSpec(name=name, view=view, features=FEATURES) for name, view in STREAMS.items()),
        graph=GraphSpec(**_write(folder / "towers.onnx", towers_graph(network)), opset=OPSET),
        heads=HeadsSpec(
            **_write(folder / "heads.safetensors", heads_file(network.heads)),
            type="gated_template",
            coarse="coarse",
            fine="fine",
        ),
        precision="bf16" if computes_bf16() else None,  # what OpenVINO made the maps in
        # Rounding moves features of statistics twice as far as those of positions; scores are held as strictly.
        parity=ParityLimits(mean_feature_error=0.03),
        anchors=ANCHORS,
        score_range=(1, 5),
        license="Apache-2.0",
        training_data=tuple(f"{data_set.title}, {data_set.license}" for data_set in DATA_SETS),
        quality=tuple(_measurement(entry) for entry in reports),
    )
    (folder / MANIFEST_NAME).write_text(manifest.model_dump_json(by_alias=True, indent=2, exclude_none=True) + "\n")
    return manifest


def heads_file(heads: QualityHeads) -> bytes:
    """The heads as safetensors, under the names that `worker.scoring.heads` reads."""
    return save_tensors({name: to_numpy(value) for name, value in heads.state_dict().items()})


def _measurement(entry: AgreementReport) -> Measurement:
    within = entry.srcc_within_generator
    return Measurement(
        dataset=entry.dataset,
        protocol="5 folds, disjoint by prompt",
        images=entry.images,
        srcc=round(entry.srcc, 4),
        plcc=round(entry.plcc, 4),
        srcc_within_generator=None if within is None else round(within, 4),
    )


def _write(file: Path, data: bytes) -> dict[str, str]:
    """Writes a file; its name and digest, as a manifest names them."""
    file.write_bytes(data)
    return {"path": file.name, "sha256": hashlib.sha256(data).hexdigest()}
