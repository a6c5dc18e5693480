"""Networks from transformers, built from their configurations: FFN neurons and inverted residuals."""

from __future__ import annotations

import pytest
import torch

import thresher

transformers = pytest.importorskip("transformers")
SHAPE = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}


def test_bert_loses_ffn_neurons_and_padding_does_not_count() -> None:
    model = transformers.BertForSequenceClassification(transformers.BertConfig(vocab_size=40, **SHAPE)).eval()
    batch = {"input_ids": torch.randint(0, 40, (4, 7)), "attention_mask": torch.ones(4, 7, dtype=torch.long)}
    batch["attention_mask"][:, 5:] = 0
    result = thresher.shrink_plan(model, "ispasp", keep={"*.intermediate.dense": 10}, calibration=[batch])
    assert {group.name.split(".")[-2] for group in result.plan.groups} >= {"intermediate"}
    layer = result.model.bert.encoder.layer[1]
    assert (layer.intermediate.dense.out_features, layer.output.dense.in_features) == (10, 10)
    assert result.model(**batch).logits.shape == (4, 2)
    assert any("attention" in name for name, _ in result.report.left_whole)


def test_vit_loses_ffn_neurons() -> None:
    model = transformers.ViTForImageClassification(transformers.ViTConfig(image_size=16, patch_size=8, **SHAPE)).eval()
    x = torch.randn(4, 3, 16, 16)
    small = thresher.shrink(model, "ispasp", "flops=80%", calibration=[x])
    assert sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in model.parameters())
    assert small(x).logits.shape == model(x).logits.shape


def test_mobilenet_loses_expanded_channels_with_their_depthwise_filters() -> None:
    config = transformers.MobileNetV2Config(image_size=32, depth_multiplier=0.1, finegrained_output=False, num_labels=4)
    model = transformers.MobileNetV2ForImageClassification(config).eval()
    x = torch.randn(4, 3, 32, 32)
    names = {"mobilenet_v2.layer.0.expand_1x1.convolution": 0.5}
    small = thresher.shrink(model, "ispasp", keep=names, calibration=[x])
    layer, old = small.mobilenet_v2.layer[0], model.mobilenet_v2.layer[0]
    half = old.expand_1x1.convolution.out_channels // 2
    assert layer.conv_3x3.convolution.groups == layer.reduce_1x1.convolution.in_channels == half
    small(x).logits.sum().backward()
