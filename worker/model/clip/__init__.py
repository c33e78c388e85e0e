"""mst-clip: the network of MST-CLIPIQA (arXiv 2606.16799) on two frozen open_clip image towers."""

from worker.model.clip.checkpoint import CheckpointError, load_checkpoint
from worker.model.clip.export import ExportError, export_model
from worker.model.clip.network import GatedFusion, MstClip, PromptHead, TemplateHead
from worker.model.clip.towers import Encoder, WeightsError, build_network

__all__ = [
    "CheckpointError",
    "Encoder",
    "ExportError",
    "GatedFusion",
    "MstClip",
    "PromptHead",
    "TemplateHead",
    "WeightsError",
    "build_network",
    "export_model",
    "load_checkpoint",
]
