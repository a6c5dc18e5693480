"""Networks from transformers, built from their configurations: heads, FFN neurons, inverted residuals."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import thresher
from thresher.budget.counts import call
from thresher.structure import ShrinkPlan, coupled_groups, first_tensor, load_folder, proven, save_folder, silenced

transformers = pytest.importorskip("transformers")
SHAPE = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 24}
WORDS = {"vocab_size": 40, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
GROUPED = {**WORDS, **SHAPE, "num_key_value_heads": 2}
TEXT = {"input_ids": torch.randint(3, 40, (4, 7), generator=torch.Generator().manual_seed(1))}
IMAGES = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(1))
DISTIL = {"dim": 16, "n_layers": 2, "n_heads": 4, "hidden_dim": 24}
MODELS: dict[str, tuple[str, dict[str, Any], Any]] = {
    "BertForSequenceClassification": ("BertConfig", {**WORDS, **SHAPE}, TEXT),
    "DistilBertForSequenceClassification": ("DistilBertConfig", {**WORDS, **DISTIL}, TEXT),
    "RobertaForMaskedLM": ("RobertaConfig", {**WORDS, **SHAPE}, TEXT),
    "ViTForImageClassification": ("ViTConfig", {"image_size": 16, "patch_size": 8, **SHAPE}, IMAGES),
    "GPT2LMHeadModel": ("GPT2Config", {**WORDS, "n_embd": 16, "n_layer": 2, "n_head": 4, "n_positions": 16}, TEXT),
    "LlamaForCausalLM": ("LlamaConfig", GROUPED, TEXT),
    "Qwen2ForCausalLM": ("Qwen2Config", GROUPED, TEXT),
}


def built(name: str) -> nn.Module:
    """The model with weights large enough that every head and neuron matters."""
    torch.manual_seed(0)
    config, options, _ = MODELS[name]
    model = getattr(transformers, name)(getattr(transformers, config)(**options)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, parameter.shape[-1] ** -0.5)
    return model


def output(model: nn.Module, batch: Any) -> Tensor:
    with torch.no_grad():
        return first_tensor(call(model, batch))


def inside(model: nn.Module, batch: Any) -> dict[str, Any]:
    good, _ = proven(model, batch, coupled_groups(model, batch)[0])
    return {group.name: group for group in good if not group.across and group.exact}


@pytest.mark.parametrize("name", MODELS)
def test_heads_and_ffn_of_every_layer_are_found_and_cutting_is_silencing(name: str) -> None:
    model, batch = built(name), MODELS[name][2]
    groups = inside(model, batch)
    heads = [group for group in groups.values() if group.kind == "heads"]
    assert len(heads) == 2
    assert {group.units for group in heads} == {2 if "num_key_value_heads" in MODELS[name][1] else 4}
    hidden = 64 if "GPT2" in name else 24
    assert sum(group.units == hidden for group in groups.values()) == 2
    for group in groups.values():
        keep = list(range(1, group.units, 2))
        with silenced(model, group, keep):
            masked = output(model, batch)
        small = ShrinkPlan(model=name, groups=(group.plan(keep),)).apply(model)
        assert torch.allclose(output(small, batch), masked, atol=1e-4), group.name
        assert not torch.allclose(output(model, batch), masked, atol=1e-4), group.name


@pytest.mark.parametrize("name", MODELS)
def test_shrunk_models_run_train_and_load_without_pickle(name: str, tmp_path: Path) -> None:
    model, batch = built(name), MODELS[name][2]
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    whole = ShrinkPlan(
        model=name, groups=tuple(group.plan(range(group.units)) for group in inside(model, batch).values())
    )
    assert torch.equal(output(whole.apply(model), batch), output(model, batch))
    result = thresher.shrink_plan(model, "ispasp", keep={"*": 0.5}, calibration=[batch])
    assert output(result.model, batch).shape == output(model, batch).shape
    assert {group.kind for group in result.plan.groups} == {"heads", "units"}
    save_folder(result.model, result.plan, tmp_path)
    assert "config.json" in {path.name for path in tmp_path.iterdir()}
    again = load_folder(tmp_path)
    assert type(again) is type(model)
    assert torch.equal(output(again, batch), output(result.model, batch))
    first_tensor(call(again.train(), batch)).square().mean().backward()
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())


def test_padding_does_not_count_and_conv1d_is_refitted() -> None:
    model = built("GPT2LMHeadModel")
    batch = {**TEXT, "attention_mask": torch.ones(4, 7, dtype=torch.long)}
    batch["attention_mask"][:, 5:] = 0
    result = thresher.shrink_plan(model, "ispasp", keep={"*.c_fc": 40, "*.c_attn": 3}, calibration=[batch])
    layer = result.model.transformer.h[1]
    assert layer.mlp.c_fc.weight.shape == (16, 40)
    assert (layer.mlp.c_proj.nx, layer.attn.c_attn.nf, layer.attn.num_heads) == (40, 36, 3)
    assert all(group.refitted for group in result.report.groups)
    assert result.report.total_macs == 2 * 7 * (4 * 16 * 16 + 2 * 16 * 64) + 7 * 16 * 40
    other = {**batch, "input_ids": batch["input_ids"].clone()}
    other["input_ids"][:, 5:] = 3
    again = thresher.shrink_plan(model, "ispasp", keep={"*.c_fc": 40, "*.c_attn": 3}, calibration=[other])
    assert again.plan == result.plan


def test_generation_works_with_fewer_key_heads() -> None:
    model = built("LlamaForCausalLM")
    small = thresher.shrink(model, "ispasp", keep={"*.q_proj": 1}, calibration=[TEXT])
    attention = small.model.layers[0].self_attn
    assert (attention.q_proj.out_features, attention.k_proj.out_features, attention.o_proj.in_features) == (8, 4, 8)
    ids = small.generate(**TEXT, max_new_tokens=3, do_sample=False)
    step = output(small, {"input_ids": ids[:, :-1]})[:, -1].argmax(-1)
    assert torch.equal(ids[:, -1], step)


def test_the_plan_names_heads_in_its_table() -> None:
    model = built("BertForSequenceClassification")
    plan = thresher.shrink_plan(model, "l2", keep={"*.query": 1}, calibration=[TEXT], rules=["exclude:*.dense"]).plan
    assert "4 heads" in plan.table()
    assert plan.groups[0].attributes[0].kept == 1


def test_layers_that_share_a_position_table_lose_the_same_heads() -> None:
    torch.manual_seed(0)
    sizes = {"vocab_size": 40, "d_model": 16, "d_kv": 4, "d_ff": 24, "num_layers": 2, "num_heads": 4}
    model = transformers.T5ForConditionalGeneration(transformers.T5Config(**sizes)).eval()
    batch = {**TEXT, "decoder_input_ids": TEXT["input_ids"][:, :5]}
    groups, left = coupled_groups(model, batch)
    heads = {group.name: group for group in groups if group.kind == "heads"}
    assert not [each for each in left if "attention heads" in each.reason]
    # One group for each stack; cross attention hands its (empty) table on as well.
    assert [len(group.readers) for group in heads.values()] == [2, 2, 2]
    joint = heads["encoder.block.0.layer.0.SelfAttention.q"]
    small = ShrinkPlan(model="T5", groups=(joint.plan([0, 2]),)).apply(model)
    with silenced(model, joint, [0, 2]):
        assert torch.allclose(output(model, batch), output(small, batch), atol=1e-5)
    table = small.encoder.block[0].layer[0].SelfAttention.relative_attention_bias.weight
    assert torch.equal(table, model.encoder.block[0].layer[0].SelfAttention.relative_attention_bias.weight[:, [0, 2]])
    result = thresher.shrink_plan(model, "ispasp", keep={"encoder.block.0.*.q": 3}, calibration=[batch])
    assert [block.layer[0].SelfAttention.n_heads for block in result.model.encoder.block] == [3, 3]


def test_a_tied_classifier_is_not_refitted_so_that_embeddings_stay() -> None:
    model = built("GPT2LMHeadModel")
    small = thresher.shrink(model, "ispasp", keep={"transformer.h.*.mlp.c_fc": 0.5}, calibration=[TEXT], scope="across")
    assert small.lm_head.weight is small.transformer.wte.weight
    assert torch.equal(small.transformer.wte.weight, model.transformer.wte.weight)


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


@pytest.fixture
def stories() -> tuple[nn.Module, Tensor]:
    root = Path(os.environ.get("THRESHER_DATA", Path(__file__).parents[3] / "shared" / "data"))
    folder, text = root / "weights" / "stories260k", root / "lm" / "tinystories_sample.txt"
    if not (folder.is_dir() and text.is_file()):
        pytest.skip("no stories260k weights")
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, local_files_only=True).eval()
    ids = transformers.AutoTokenizer.from_pretrained(folder)(text.read_text(), return_tensors="pt").input_ids
    return model, ids[0, : 28 * 64].reshape(28, 64)


@pytest.mark.shared_data
def test_a_trained_language_model_keeps_more_of_its_skill_than_by_weight_norm(
    stories: tuple[nn.Module, Tensor], tmp_path: Path
) -> None:
    model, text = stories
    seen, held = text[:14], text[14:]

    def loss(net: nn.Module) -> float:
        with torch.no_grad():
            return float(net(input_ids=held, labels=held).loss)

    keep = {"*.q_proj": 3, "*.gate_proj": 0.6}
    result = thresher.shrink_plan(model, "ispasp", keep=keep, calibration=[{"input_ids": seen}])
    plain = thresher.shrink(model, "l1", keep=keep, calibration=[{"input_ids": seen}])
    assert loss(model) < loss(result.model) < loss(plain)
    save_folder(result.model, result.plan, tmp_path)
    assert loss(load_folder(tmp_path)) == loss(result.model)
