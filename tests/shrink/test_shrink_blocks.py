"""A checkpoint shrunk block by block: one block in memory, the same cuts, loads like any shrunk folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import thresher
from thresher.errors import InputError
from thresher.shrinking import blocks as module
from thresher.shrinking.blocks import shrink_folder
from thresher.structure import load_folder

transformers = pytest.importorskip("transformers")
WORDS = {"vocab_size": 40, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
SHAPE = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 24}
TEXT = {"input_ids": torch.randint(3, 40, (4, 7), generator=torch.Generator().manual_seed(1))}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "LlamaForCausalLM": ("LlamaConfig", {**SHAPE, "num_key_value_heads": 2, "tie_word_embeddings": True}),
    "Qwen2ForCausalLM": ("Qwen2Config", {**SHAPE, "num_key_value_heads": 2}),
    "GPT2LMHeadModel": ("GPT2Config", {"n_embd": 16, "n_layer": 3, "n_head": 4, "n_positions": 16}),
    "OPTForCausalLM": (
        "OPTConfig",
        {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 4, "ffn_dim": 24, "word_embed_proj_dim": 16},
    ),
}
KEEP = {"*.q_proj": 0.5, "*.c_attn": 0.5, "*.gate_proj": 10, "*.c_fc": 10, "*.fc1": 10}


def written(name: str, folder: Path) -> nn.Module:
    torch.manual_seed(0)
    config, options = MODELS[name]
    model = getattr(transformers, name)(getattr(transformers, config)(**WORDS, **options)).eval()
    model.save_pretrained(folder)
    return model


def keep_of(name: str) -> dict[str, float]:
    inner = {"LlamaForCausalLM": ("q_proj", "gate_proj"), "GPT2LMHeadModel": ("c_attn", "c_fc")}
    inner |= {"Qwen2ForCausalLM": inner["LlamaForCausalLM"], "OPTForCausalLM": ("q_proj", "fc1")}
    return {f"*.{each}": KEEP[f"*.{each}"] for each in inner[name]}


@pytest.mark.parametrize("name", MODELS)
def test_block_by_block_gives_what_the_whole_model_gives(name: str, tmp_path: Path) -> None:
    model = written(name, tmp_path / "dense")
    keep = keep_of(name)
    plan = shrink_folder(tmp_path / "dense", tmp_path / "small", keep=keep, calibration=[TEXT])
    whole = thresher.shrink_plan(model, "ispasp", keep=keep, calibration=[TEXT])
    wanted = {group.name: group for group in whole.plan.groups if len(group.keep) < group.units}
    assert {group.name: group.keep for group in plan.groups} == {name: group.keep for name, group in wanted.items()}
    small = load_folder(tmp_path / "small")
    with torch.no_grad():
        assert torch.allclose(small(**TEXT).logits, whole.model(**TEXT).logits, atol=1e-4)
        assert not torch.allclose(small(**TEXT).logits, model(**TEXT).logits, atol=1e-3)


def test_keeping_everything_is_the_model_and_ties_stay(tmp_path: Path) -> None:
    model = written("LlamaForCausalLM", tmp_path / "dense")
    shrink_folder(tmp_path / "dense", tmp_path / "small", keep={"*": 1.0}, calibration=[TEXT["input_ids"]])
    small = load_folder(tmp_path / "small")
    with torch.no_grad():
        assert torch.equal(small(**TEXT).logits, model(**TEXT).logits)
    assert small.lm_head.weight is small.model.embed_tokens.weight


def test_one_block_is_in_memory_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written("LlamaForCausalLM", tmp_path / "dense")
    models: list[nn.Module] = []
    real: list[list[int]] = []
    build, shrink = module.from_config, module.shrink_plan

    def built(folder: Path) -> nn.Module:
        models.append(build(folder))
        return models[-1]

    def watched(*args: Any, **options: Any) -> Any:
        layers = models[0].get_submodule("model.layers")
        real.append([i for i, each in enumerate(layers) if any(not p.is_meta for p in each.parameters())])
        return shrink(*args, **options)

    monkeypatch.setattr(module, "from_config", built)
    monkeypatch.setattr(module, "shrink_plan", watched)
    shrink_folder(tmp_path / "dense", tmp_path / "small", keep={"*.q_proj": 1}, calibration=[TEXT])
    assert real == [[0], [1], [2]]


def test_padding_does_not_count(tmp_path: Path) -> None:
    written("LlamaForCausalLM", tmp_path / "dense")
    mask = torch.ones(4, 7, dtype=torch.long)
    mask[1:, 5:] = 0
    plans = []
    for token in (3, 9):
        ids = torch.where(mask.bool(), TEXT["input_ids"], token)
        batch = {"input_ids": ids, "attention_mask": mask}
        plans.append(
            shrink_folder(tmp_path / "dense", tmp_path / f"{token}", "ispasp", "flops=60%", calibration=[batch])
        )
    assert plans[0] == plans[1]


def test_an_incomplete_checkpoint_is_refused(tmp_path: Path) -> None:
    written("LlamaForCausalLM", tmp_path / "dense")
    for calibration, words in (([], "no batches"), ([TEXT], "no group")):
        with pytest.raises(InputError, match=words):
            shrink_folder(tmp_path / "dense", tmp_path / "small", keep={"nothing": 1}, calibration=calibration)
    (tmp_path / "dense" / "model.safetensors").unlink()
    with pytest.raises(InputError, match=r"model\.safetensors"):
        shrink_folder(tmp_path / "dense", tmp_path / "small", keep={"*.q_proj": 1}, calibration=[TEXT])
