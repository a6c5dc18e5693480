"""Stacks of blocks: transformers families from their configurations, one block at a time."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import thresher
from thresher.errors import InputError
from thresher.oneshot import statistics
from thresher.oneshot.chains import candidates, proven
from thresher.oneshot.walking import stages

transformers = pytest.importorskip("transformers")
SHAPE = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 24, "vocab_size": 40}
KV = {**SHAPE, "num_key_value_heads": 1, "tie_word_embeddings": False}
METHODS = ["magnitude", "wanda", "sparsegpt"]


def family(name: str) -> nn.Module:
    torch.manual_seed(0)
    match name:
        case "llama":
            return transformers.LlamaForCausalLM(transformers.LlamaConfig(**KV)).eval()
        case "qwen2":
            config = transformers.Qwen2Config(**KV, use_sliding_window=True, sliding_window=4, max_window_layers=1)
            return transformers.Qwen2ForCausalLM(config).eval()
        case "gpt2":
            config = transformers.GPT2Config(n_embd=16, n_layer=3, n_head=2, n_inner=24, vocab_size=40)
            return transformers.GPT2LMHeadModel(config).eval()
        case "opt":
            config = transformers.OPTConfig(ffn_dim=24, word_embed_proj_dim=16, **SHAPE)
            return transformers.OPTForCausalLM(config).eval()
        case _:
            return transformers.BertForSequenceClassification(transformers.BertConfig(**SHAPE)).eval()


FAMILIES = ["llama", "qwen2", "gpt2", "opt", "bert"]


def batches(count: int = 3) -> list[dict[str, Tensor]]:
    noise = torch.Generator().manual_seed(1)
    found = []
    for _ in range(count):
        mask = torch.ones(4, 9, dtype=torch.long)
        mask[0, 6:] = 0
        found.append({"input_ids": torch.randint(2, 40, (4, 9), generator=noise), "attention_mask": mask})
    return found


def logits(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    with torch.no_grad():
        return model(**batch).logits


@pytest.mark.parametrize("name", FAMILIES)
def test_carried_hidden_states_are_those_of_the_whole_network(name: str) -> None:
    model, data = family(name), batches()
    chains, _ = proven(model, candidates(model, "auto"), data[0])
    assert [len(chain) for _, chain in chains] == [3]
    inputs: dict[int, Tensor] = {}
    last = chains[0][1][2]

    def note(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        inputs[len(inputs)] = args[0] if args else kwargs["hidden_states"]

    handle = last.register_forward_pre_hook(note, with_kwargs=True)
    for batch in data:
        logits(model, batch)
    expected = dict(inputs)
    inputs.clear()
    for place, stage in enumerate(stages(model, chains, data)):
        if place < 2:
            stage.leave()
    for number, batch in enumerate(data):
        stage.run(number, batch)
    handle.remove()
    # The hook of this test runs before the carried states are put in: what counts is what the block then computes.
    assert all(torch.equal(stage.carried[number], expected[number]) for number in range(3))
    assert not any("forward" in vars(module) for module in model.modules())


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_is_pruned_exactly_inside_its_blocks(name: str, method: str) -> None:
    model = family(name)
    report = thresher.prune_oneshot(model, method, "sparsity=50%", calibration=batches())
    assert report.zeros == report.entries // 2
    assert all(abs(2 * layer.zeros - layer.entries) <= 1 for layer in report.budget.layers)
    assert all(error.columns == 3 * 33 for error in report.errors)  # padding does not count
    assert not report.budget.notes
    left = dict(report.budget.skipped)
    assert left
    assert all("outside the blocks" in reason or "tied" in reason for reason in left.values())
    half = thresher.prune_oneshot(family(name), method, groups="2:4", calibration=batches())
    assert half.sparsity == 0.5
    assert torch.isfinite(logits(model, batches()[0])).all()


@pytest.mark.parametrize("name", FAMILIES)
def test_the_last_block_is_pruned_on_the_outputs_of_pruned_blocks(name: str) -> None:
    model, data = family(name), batches()
    dense = copy.deepcopy(model)
    report = thresher.prune_oneshot(model, "wanda", "sparsity=50%", calibration=data)
    # The first layer of the last block again, by hand: pruned blocks before it, its own weights dense.
    chain = candidates(dense, "auto")[0][1]
    final = candidates(model, "auto")[0][1]
    for place in (0, 1):
        chain[place].load_state_dict(final[place].state_dict())
    again = thresher.prune_oneshot(dense, "wanda", "sparsity=50%", calibration=data, blocks=None, rules=only(name))
    assert [error.after for error in again.errors] == pytest.approx(
        [error.after for error in report.errors[-len(again.errors) :]], rel=1e-5
    )
    first = again.errors[0].name
    assert torch.equal(dense.get_parameter(first), model.get_parameter(first))


def only(name: str) -> list[str]:
    """Rules that leave the last block alone prunable."""
    stem = {"llama": "model.layers", "qwen2": "model.layers", "gpt2": "transformer.h", "opt": "model.decoder.layers"}
    blocks = stem.get(name, "bert.encoder.layer")
    head = {"bert": ["exclude:classifier", "exclude:bert.pooler.dense"], "gpt2": [], "opt": []}
    heads = head.get(name, ["exclude:lm_head"])
    return [f"exclude:{blocks}.0.*", f"exclude:{blocks}.1.*", *heads]


def test_conv1d_is_pruned_along_its_inputs() -> None:
    model = family("gpt2")
    thresher.prune_oneshot(model, "sparsegpt", groups="2:4", calibration=batches())
    weight = model.transformer.h[1].mlp.c_fc.weight  # (inputs, outputs)
    assert weight.shape == (16, 24)
    assert (weight.T.reshape(24, 4, 4) != 0).sum(-1).unique().tolist() == [2]


def test_flops_count_conv1d() -> None:
    model = family("gpt2")
    report = thresher.prune_oneshot(model, "wanda", "flops=70%", calibration=batches()).budget
    assert 0.7 * report.total_macs - 9 < report.got["flops"] <= 0.7 * report.total_macs


def test_only_one_block_is_watched_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[int] = []
    begin = statistics.Statistics.begin

    def counted(self: statistics.Statistics, inputs: Any) -> None:
        held.append(len(self._layers))
        begin(self, inputs)

    monkeypatch.setattr(statistics.Statistics, "begin", counted)
    seen: list[tuple[int, int, str]] = []
    thresher.prune_oneshot(
        family("llama"), "wanda", "sparsity=50%", calibration=batches(2), progress=lambda *step: seen.append(step)
    )
    assert held == [7, 7] * 3
    assert list(dict.fromkeys(done for done, _, _ in seen)) == list(range(21))


def test_a_head_is_pruned_when_a_rule_includes_it() -> None:
    model = family("llama")
    report = thresher.prune_oneshot(model, "wanda", "sparsity=50%", calibration=batches(), rules=["include:lm_head"])
    assert report.errors[-1].name == "lm_head.weight"
    assert int((model.lm_head.weight == 0).sum()) == 320


def test_a_head_tied_to_the_embedding_is_pruned_once_when_both_are_included() -> None:
    model = family("gpt2")
    rules = ["include:transformer.wte"]
    report = thresher.prune_oneshot(model, "wanda", "sparsity=50%", calibration=batches(), rules=rules)
    assert model.lm_head.weight is model.transformer.wte.weight
    assert report.errors[-1].columns == 3 * 33  # what the head reads; numbers of words are no inputs to weigh
    assert int((model.lm_head.weight == 0).sum()) == 320
    assert report.zeros == report.entries // 2


def test_an_error_on_the_way_leaves_no_hooks_and_no_jumps() -> None:
    model = family("llama")

    def fail(*arguments: object) -> None:
        raise ArithmeticError

    model.model.layers[1].mlp.down_proj.register_forward_hook(fail)
    with pytest.raises(InputError, match="on which the model fails"):
        thresher.prune_oneshot(model, "wanda", "sparsity=50%", calibration=batches())
    calls = [0]

    def late(*arguments: object) -> None:
        calls[0] += 1
        if calls[0] > 4:
            raise ArithmeticError

    model.model.layers[1].mlp.down_proj._forward_hooks.clear()
    model.model.layers[1].mlp.down_proj.register_forward_hook(late)
    with pytest.raises(InputError, match="on which the model fails"):
        thresher.prune_oneshot(model, "wanda", "sparsity=50%", calibration=batches())
    model.model.layers[1].mlp.down_proj._forward_hooks.clear()
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert not any("forward" in vars(module) for module in model.modules())


def test_layer_order_also_works_inside_blocks() -> None:
    report = thresher.prune_oneshot(family("llama"), "sparsegpt", "sparsity=50%", calibration=batches(), order="layer")
    names = [error.name.split(".")[-2] for error in report.errors[:7]]
    assert names == ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    assert report.zeros == report.entries // 2


def test_bfloat16_models_stay_bfloat16() -> None:
    model = family("llama").bfloat16()
    report = thresher.prune_oneshot(model, "sparsegpt", "sparsity=50%", calibration=batches())
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    assert report.zeros == report.entries // 2


def test_a_stack_that_is_no_chain_is_taken_at_once_and_the_report_says_so() -> None:
    config = transformers.T5Config(
        vocab_size=40, d_model=16, d_kv=8, d_ff=24, num_layers=2, num_heads=2, decoder_start_token_id=0
    )
    model = transformers.T5ForConditionalGeneration(config).eval()
    ids = torch.randint(2, 40, (4, 6))
    data = [{"input_ids": ids, "decoder_input_ids": ids}]
    report = thresher.prune_oneshot(model, "wanda", "sparsity=50%", calibration=data)
    assert any("no plain chain" in note for note in report.budget.notes)
    assert report.sparsity == 0.5


class Stack(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Linear(6, 8)
        self.layers = nn.ModuleList(nn.Sequential(nn.Linear(8, 8), nn.Tanh()) for _ in range(2))
        self.odd = nn.ModuleList([nn.Linear(8, 8)])

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for layer in self.layers:
            x = layer(x)
        return self.odd[0](self.odd[0](x))


def test_any_model_goes_block_by_block_when_the_list_is_named() -> None:
    model, x = Stack(), torch.randn(20, 6)
    report = thresher.prune_oneshot(model, "sparsegpt", "sparsity=50%", calibration=[x], blocks="layers")
    assert [error.name for error in report.errors] == ["layers.0.0.weight", "layers.1.0.weight"]
    assert report.zeros == 64
    assert thresher.prune_oneshot(Stack(), "sparsegpt", "sparsity=50%", calibration=[x]).entries == 48 + 3 * 64
    with pytest.raises(InputError, match="do not simply read"):
        thresher.prune_oneshot(Stack(), "wanda", "sparsity=50%", calibration=[x], blocks="odd")
