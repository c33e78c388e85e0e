"""The paper's network as its PyTorch code would build it, on CLIP classes of transformers, with random weights."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
open_clip = pytest.importorskip("open_clip")
transformers = pytest.importorskip("transformers")
from torch import Tensor, nn  # noqa: E402

COARSE, FINE = "sluice-test-32", "sluice-test-16"
VOCABULARY = 49408
WORDS = ("bad", "poor", "fair", "good", "perfect")


@dataclass(frozen=True)
class Sizes:
    """One CLIP."""

    image: int
    patch: int
    width: int
    layers: int
    text_width: int
    text_heads: int
    text_layers: int
    features: int


TINY = {COARSE: Sizes(64, 32, 128, 2, 64, 2, 2, 64), FINE: Sizes(64, 16, 128, 3, 64, 2, 1, 64)}
REAL = {
    "ViT-B-32-quickgelu": Sizes(224, 32, 768, 12, 512, 8, 12, 512),
    "ViT-B-16-quickgelu": Sizes(224, 16, 768, 12, 512, 8, 12, 512),
}


@pytest.fixture(scope="session", autouse=True)
def _tiny_architectures(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("architectures")
    for name, sizes in TINY.items():
        config = {
            "embed_dim": sizes.features,
            "quick_gelu": True,
            "vision_cfg": {
                "image_size": sizes.image, "layers": sizes.layers, "width": sizes.width, "patch_size": sizes.patch,
            },
            "text_cfg": {
                "context_length": 77, "vocab_size": VOCABULARY, "width": sizes.text_width, "heads": sizes.text_heads,
                "layers": sizes.text_layers,
            },
        }  # fmt: skip
        (folder / f"{name}.json").write_text(json.dumps(config))
    open_clip.add_model_config(folder)


def clip(sizes: Sizes) -> Any:
    """A CLIP of transformers whose weights are all random, also those that start at 0 or 1."""
    config = transformers.CLIPConfig(
        projection_dim=sizes.features,
        vision_config={
            "image_size": sizes.image, "patch_size": sizes.patch, "hidden_size": sizes.width,
            "intermediate_size": 4 * sizes.width, "num_hidden_layers": sizes.layers,
            "num_attention_heads": sizes.width // 64, "projection_dim": sizes.features,
        },
        text_config={
            "vocab_size": VOCABULARY, "hidden_size": sizes.text_width, "intermediate_size": 4 * sizes.text_width,
            "num_hidden_layers": sizes.text_layers, "num_attention_heads": sizes.text_heads,
            "projection_dim": sizes.features,
        },
    )  # fmt: skip
    model = transformers.CLIPModel(config)
    for name, parameter in model.named_parameters():
        if name.endswith("bias") or "norm" in name:
            nn.init.normal_(parameter, 1.0 if "norm" in name and name.endswith("weight") else 0.0, 0.1)
    return model


class Fusion(nn.Module):
    def __init__(self, features: int) -> None:
        super().__init__()
        self.W_h, self.W_g = nn.Linear(2 * features, 128), nn.Linear(128, features)
        self.W_c, self.W_f = nn.Linear(features, features), nn.Linear(features, features)


class Template(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.temperature = nn.Parameter(torch.tensor(90.0))


class Prompted(nn.Module):
    def __init__(self, features: int) -> None:
        super().__init__()
        self.cross_attn = nn.MultiheadAttention(features, 8, batch_first=True)
        self.alpha = nn.Parameter(torch.tensor(0.7))
        self.W_1, self.W_2 = nn.Linear(features, 48), nn.Linear(features, 48)
        self.w_o = nn.Linear(48, 1)


class Encoders(nn.Module):
    def __init__(self, coarse: Sizes, fine: Sizes) -> None:
        super().__init__()
        self.encoder_coarse, self.encoder_fine = clip(coarse), clip(fine)


class Reference(nn.Module):
    """Written from the paper's formulas, sharing nothing with worker.model.clip."""

    def __init__(self, sizes: dict[str, Sizes], head: nn.Module) -> None:
        super().__init__()
        coarse, fine = sizes.values()
        self.mstfe = Encoders(coarse, fine)
        self.gff = Fusion(coarse.features)
        self.head = head

    def _image(self, encoder: Any, pixels: Tensor) -> Tensor:
        pooled = encoder.vision_model(pixel_values=pixels).pooler_output
        features: Tensor = encoder.visual_projection(pooled)
        return features

    def fused(self, pixels: Tensor) -> Tensor:
        """CLIP-normalised pixels, [batch, 3, H, W]."""
        c, f = self._image(self.mstfe.encoder_coarse, pixels), self._image(self.mstfe.encoder_fine, pixels)
        g = torch.sigmoid(self.gff.W_g(torch.relu(self.gff.W_h(torch.cat([c, f], dim=-1)))))
        z: Tensor = g * self.gff.W_c(c) + (1 - g) * self.gff.W_f(f)
        return z

    def template_quality(self, pixels: Tensor) -> Tensor:
        text = self.mstfe.encoder_coarse
        rows = []
        for word in WORDS:
            ids = _ids(f"a photo with {word} quality")
            rows.append(text.text_projection(text.text_model(input_ids=ids).pooler_output)[0])
        cosines = nn.functional.cosine_similarity(self.fused(pixels)[:, None], torch.stack(rows)[None], dim=-1)
        share = torch.softmax(self.head.temperature * cosines, dim=-1)
        quality: Tensor = share @ torch.arange(1.0, 6.0)
        return quality

    def prompt_score(self, pixels: Tensor, prompts: list[str]) -> Tensor:
        scores = []
        for z, prompt in zip(self.fused(pixels), prompts, strict=True):
            tokens = self.mstfe.encoder_coarse.text_model(input_ids=_ids(prompt)).last_hidden_state
            attended = self.head.cross_attn(z[None, None], tokens, tokens)[0][0, 0]
            seen = z + self.head.alpha * attended
            scores.append(self.head.w_o(nn.functional.gelu(self.head.W_1(seen)) + self.head.W_2(seen))[0])
        return torch.stack(scores)


def _ids(text: str) -> Tensor:
    """Token ids without padding."""
    ids = open_clip.tokenize([text])[0]
    end: Tensor = ids[None, : int(ids.argmax()) + 1]
    return end


@pytest.fixture(scope="session")
def make_reference() -> Callable[..., Reference]:
    """A reference network with a `template` or a `prompt` head, on tiny towers unless `real`."""

    def make(head: str = "template", *, real: bool = False, seed: int = 1) -> Reference:
        torch.manual_seed(seed)
        sizes = REAL if real else TINY
        features = next(iter(sizes.values())).features
        return Reference(sizes, Template() if head == "template" else Prompted(features)).eval()

    return make


@pytest.fixture
def save_checkpoint(tmp_path: Path) -> Callable[..., Path]:
    def save(state: dict[str, Tensor], name: str = "checkpoint.pt") -> Path:
        torch.save(state, tmp_path / name)
        return tmp_path / name

    return save
