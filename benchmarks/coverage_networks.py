"""The networks of coverage.py: architectures of transformers at small sizes, our own, and a few written out here."""

# ruff: noqa: E501 - one network a line
from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from torch.nn import functional

from thresher.apps.models.registry import build_model

SHAPE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
TEXT = {"vocab_size": 64, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
WORDS = {**SHAPE, **TEXT}


class DenseNet(nn.Module):
    """Each layer reads all before it, side by side (two blocks with a transition)."""

    def __init__(self, growth: int = 8) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.first, width = self._block(16, growth)
        self.between = nn.Sequential(nn.BatchNorm2d(width), nn.ReLU(), nn.Conv2d(width, width // 2, 1), nn.AvgPool2d(2))
        self.second, width = self._block(width // 2, growth)
        self.norm, self.head = nn.BatchNorm2d(width), nn.Linear(width, 10)

    def _block(self, width: int, growth: int) -> tuple[nn.ModuleList, int]:
        layers = nn.ModuleList()
        for _ in range(3):
            layers.append(
                nn.Sequential(
                    nn.BatchNorm2d(width),
                    nn.ReLU(),
                    nn.Conv2d(width, 4 * growth, 1, bias=False),
                    nn.BatchNorm2d(4 * growth),
                    nn.ReLU(),
                    nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False),
                )
            )
            width += growth
        return layers, width

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for layer in self.first:
            x = torch.cat([x, layer(x)], 1)
        x = self.between(x)
        for layer in self.second:
            x = torch.cat([x, layer(x)], 1)
        return self.head(functional.relu(self.norm(x)).mean((2, 3)))


class ResNeXtBlock(nn.Module):
    """1x1, grouped 3x3, 1x1, with a skip."""

    def __init__(self, width: int, hidden: int, groups: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(width, hidden, 1, bias=False), nn.BatchNorm2d(hidden)
        self.conv2 = nn.Conv2d(hidden, hidden, 3, padding=1, groups=groups, bias=False)
        self.bn2 = nn.BatchNorm2d(hidden)
        self.conv3, self.bn3 = nn.Conv2d(hidden, width, 1, bias=False), nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        y = functional.relu(self.bn1(self.conv1(x)))
        y = functional.relu(self.bn2(self.conv2(y)))
        return functional.relu(x + self.bn3(self.conv3(y)))


class ResNeXt(nn.Module):
    """A stem, three grouped blocks, a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 32, 3, padding=1)
        self.blocks = nn.Sequential(*(ResNeXtBlock(32, 32, 4) for _ in range(3)))
        self.head = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(functional.relu(self.stem(x))).mean((2, 3)))


class UNet(nn.Module):
    """Down, up by a transposed convolution, joined with the way down."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 32, 3, 2, padding=1)
        self.up, self.last = nn.ConvTranspose2d(32, 16, 2, 2), nn.Conv2d(32, 16, 3, padding=1)
        self.head = nn.Conv2d(16, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        one = functional.relu(self.one(x))
        up = functional.relu(self.up(functional.relu(self.two(one))))
        return self.head(functional.relu(self.last(torch.cat([one, up], 1))))


class Encoder(nn.Module):
    """torch's own transformer encoder."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(32, 4, 256, dropout=0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.encoder(x).mean(1))


class Experts(nn.Module):
    """A block whose FFN is four experts of plain layers, two for each token."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.norm, self.head = nn.Linear(16, 32), nn.LayerNorm(32), nn.Linear(32, 10)
        self.router = nn.Linear(32, 4, bias=False)
        self.experts = nn.ModuleList(nn.Sequential(nn.Linear(32, 64), nn.GELU(), nn.Linear(64, 32)) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x)
        flat = self.norm(x).flatten(0, 1)
        shares, chosen = self.router(flat).softmax(-1).topk(2)
        mixed = torch.zeros_like(flat)
        for number, expert in enumerate(self.experts):
            rows, place = (chosen == number).nonzero(as_tuple=True)
            mixed = mixed.index_add(0, rows, expert(flat[rows]) * shares[rows, place, None])
        return self.head(x + mixed.reshape(x.shape)).mean(1)


class Seq2Seq(nn.Module):
    """torch's own encoder and decoder: attention to itself and across."""

    def __init__(self) -> None:
        super().__init__()
        self.both = nn.Transformer(32, 4, 2, 2, 256, dropout=0.0, batch_first=True)
        self.head = nn.Linear(32, 10)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.head(self.both(x, y))


def images(size: int = 32, channels: int = 3, count: int = 8) -> Callable[[], Tensor]:
    """Random images."""
    return lambda: torch.randn(count, channels, size, size)


def words(length: int = 12, count: int = 8) -> Callable[[], dict[str, Tensor]]:
    """Random token ids."""
    return lambda: {"input_ids": torch.randint(3, 64, (count, length))}


def pairs(length: int = 12, count: int = 8) -> Callable[[], dict[str, Tensor]]:
    """Random token ids for an encoder and a decoder."""
    return lambda: {
        "input_ids": torch.randint(3, 64, (count, length)),
        "decoder_input_ids": torch.randint(3, 64, (count, length)),
    }


def hf(model: str, config: str, **options: Any) -> Callable[[], nn.Module]:
    """A model of transformers from its configuration."""
    return lambda: getattr(transformers, model)(getattr(transformers, config)(**options))


def named(name: str) -> Callable[[], nn.Module]:
    """One of our own."""
    return partial(build_model, name, num_classes=10, input_shape=(3, 32, 32))


VIT = {"image_size": 16, "patch_size": 4, "num_labels": 10, **SHAPE}
SWIN = {"image_size": 32, "patch_size": 2, "embed_dim": 16, "depths": [2, 2], "num_heads": [2, 4], "window_size": 4}
CONV = {"hidden_sizes": [16, 32, 48, 64], "depths": [2, 2, 2, 2], "num_labels": 10}
GROUPED = {**WORDS, "num_key_value_heads": 2}

NETWORKS: list[tuple[str, str, Callable[[], nn.Module], Callable[[], Any]]] = [
    ("VGG-11", "plain", named("vgg11"), images()),
    ("small CNN", "plain", named("small-cnn"), images()),
    ("UNet", "concat, transposed", UNet, images(16)),
    ("ResNet-20", "residual", named("resnet20"), images()),
    ("Wide ResNet-16-2", "residual", named("wrn16-2"), images(16)),
    ("ResNet, basic", "residual", hf("ResNetForImageClassification", "ResNetConfig", embedding_size=16, layer_type="basic", **CONV), images()),
    ("ResNet, bottleneck", "residual", hf("ResNetForImageClassification", "ResNetConfig", embedding_size=16, **CONV), images()),
    ("BiT", "residual, group norm", hf("BitForImageClassification", "BitConfig", embedding_size=32, num_groups=8, **{**CONV, "hidden_sizes": [32, 64, 96, 128]}), images()),
    ("DenseNet", "dense concat", DenseNet, images(16)),
    ("ResNeXt", "grouped", ResNeXt, images(16)),
    ("RegNet-X", "grouped", hf("RegNetForImageClassification", "RegNetConfig", embedding_size=16, layer_type="x", groups_width=8, **CONV), images()),
    ("RegNet-Y", "grouped, squeeze-excite", hf("RegNetForImageClassification", "RegNetConfig", embedding_size=16, layer_type="y", groups_width=8, **CONV), images()),
    ("MobileNetV1", "depthwise", hf("MobileNetV1ForImageClassification", "MobileNetV1Config", image_size=32, depth_multiplier=0.25, num_labels=10), images()),
    ("MobileNetV2", "depthwise", hf("MobileNetV2ForImageClassification", "MobileNetV2Config", image_size=32, depth_multiplier=0.25, num_labels=10), images()),
    ("EfficientNet-B0", "depthwise, squeeze-excite", hf("EfficientNetForImageClassification", "EfficientNetConfig", image_size=32, width_coefficient=0.25, depth_coefficient=0.5, hidden_dim=320, num_labels=10), images()),
    ("ConvNeXt", "depthwise, layer norm", hf("ConvNextForImageClassification", "ConvNextConfig", **CONV), images()),
    ("ConvNeXt V2", "depthwise, response norm", hf("ConvNextV2ForImageClassification", "ConvNextV2Config", **CONV), images()),
    ("PoolFormer", "pooling as mixer", hf("PoolFormerForImageClassification", "PoolFormerConfig", **CONV), images()),
    ("ViT", "vision transformer", hf("ViTForImageClassification", "ViTConfig", **VIT), images(16)),
    ("DeiT", "vision transformer", hf("DeiTForImageClassification", "DeiTConfig", **VIT), images(16)),
    ("BEiT", "vision transformer", hf("BeitForImageClassification", "BeitConfig", use_relative_position_bias=True, **VIT), images(16)),
    ("DINOv2", "vision transformer", hf("Dinov2ForImageClassification", "Dinov2Config", **VIT), images(16)),
    ("CLIP vision", "vision transformer", hf("CLIPVisionModel", "CLIPVisionConfig", image_size=16, patch_size=4, **SHAPE), images(16)),
    ("SegFormer", "vision transformer, pyramid", hf("SegformerForImageClassification", "SegformerConfig", hidden_sizes=[16, 32, 48, 64], depths=[1, 1, 1, 1], num_attention_heads=[1, 2, 4, 8], num_labels=10), images()),
    ("MobileViT", "convolution and attention", hf("MobileViTForImageClassification", "MobileViTConfig", image_size=32, hidden_sizes=[32, 48, 64], neck_hidden_sizes=[8, 16, 24, 32, 48, 64, 96], num_labels=10), images()),
    ("Swin", "windows", hf("SwinForImageClassification", "SwinConfig", num_labels=10, **SWIN), images()),
    ("Swin V2", "windows", hf("Swinv2ForImageClassification", "Swinv2Config", num_labels=10, **SWIN), images()),
    ("BERT", "encoder", hf("BertForSequenceClassification", "BertConfig", **WORDS), words()),
    ("RoBERTa", "encoder", hf("RobertaForSequenceClassification", "RobertaConfig", **WORDS), words()),
    ("DistilBERT", "encoder", hf("DistilBertForSequenceClassification", "DistilBertConfig", **TEXT, dim=32, n_layers=2, n_heads=4, hidden_dim=64), words()),
    ("ALBERT", "encoder, shared layers", hf("AlbertForSequenceClassification", "AlbertConfig", embedding_size=16, **WORDS), words()),
    ("ELECTRA", "encoder", hf("ElectraForSequenceClassification", "ElectraConfig", embedding_size=16, **WORDS), words()),
    ("DeBERTa-v2", "encoder, relative positions", hf("DebertaV2ForSequenceClassification", "DebertaV2Config", **WORDS), words()),
    ("ModernBERT", "encoder, gated", hf("ModernBertForSequenceClassification", "ModernBertConfig", cls_token_id=1, sep_token_id=2, **WORDS), words()),
    ("torch TransformerEncoder", "encoder", Encoder, lambda: torch.randn(8, 6, 32)),
    ("GPT-2", "decoder", hf("GPT2LMHeadModel", "GPT2Config", n_embd=32, n_layer=2, n_head=4, n_positions=32, **TEXT), words()),
    ("GPT-NeoX", "decoder", hf("GPTNeoXForCausalLM", "GPTNeoXConfig", **WORDS), words()),
    ("BLOOM", "decoder", hf("BloomForCausalLM", "BloomConfig", hidden_size=32, n_layer=2, n_head=4, **TEXT), words()),
    ("Falcon", "decoder, one key head", hf("FalconForCausalLM", "FalconConfig", **WORDS), words()),
    ("OPT", "decoder", hf("OPTForCausalLM", "OPTConfig", hidden_size=32, num_hidden_layers=2, num_attention_heads=4, ffn_dim=64, word_embed_proj_dim=32, **TEXT), words()),
    ("Llama", "decoder, grouped queries, gated", hf("LlamaForCausalLM", "LlamaConfig", **GROUPED), words()),
    ("Mistral", "decoder, grouped queries, gated", hf("MistralForCausalLM", "MistralConfig", **GROUPED), words()),
    ("Qwen2", "decoder, grouped queries, gated", hf("Qwen2ForCausalLM", "Qwen2Config", **GROUPED), words()),
    ("Qwen3", "decoder, grouped queries, gated", hf("Qwen3ForCausalLM", "Qwen3Config", head_dim=8, **GROUPED), words()),
    ("Gemma", "decoder, one key head, gated", hf("GemmaForCausalLM", "GemmaConfig", head_dim=8, **{**GROUPED, "num_key_value_heads": 1}), words()),
    ("Gemma 2", "decoder, grouped queries, gated", hf("Gemma2ForCausalLM", "Gemma2Config", head_dim=8, **GROUPED), words()),
    ("Phi", "decoder", hf("PhiForCausalLM", "PhiConfig", **WORDS), words()),
    ("Phi-3", "decoder, fused layers", hf("Phi3ForCausalLM", "Phi3Config", **GROUPED), words()),
    ("Mixtral", "decoder, experts", hf("MixtralForCausalLM", "MixtralConfig", num_local_experts=4, **GROUPED), words()),
    ("torch Transformer", "encoder and decoder", Seq2Seq, lambda: {"x": torch.randn(8, 6, 32), "y": torch.randn(8, 5, 32)}),
    ("mixture of experts", "experts of plain layers", Experts, lambda: torch.randn(16, 12, 16)),
    ("T5 encoder", "encoder, shared position bias", hf("T5EncoderModel", "T5Config", d_model=32, d_kv=8, d_ff=128, num_layers=2, num_heads=4, vocab_size=64), words()),
    ("T5", "encoder and decoder, shared position biases", hf("T5ForConditionalGeneration", "T5Config", d_model=32, d_kv=8, d_ff=128, num_layers=2, num_heads=4, vocab_size=64, pad_token_id=0, decoder_start_token_id=0), pairs()),
    ("BART", "encoder and decoder", hf("BartModel", "BartConfig", d_model=32, encoder_layers=2, decoder_layers=2, encoder_attention_heads=4, decoder_attention_heads=4, encoder_ffn_dim=64, decoder_ffn_dim=64, **TEXT), pairs()),
]  # fmt: skip
