"""Claims about exports: equal outputs at every batch size, or no file at all."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import thresher.deploy.export.capturing as capturing
import thresher.deploy.export.onnx as onnx_module
from thresher.deploy.examples import arguments, batch_of, difference, tensors, with_batch
from thresher.deploy.export import export_huggingface, export_onnx, export_torch, fold_batch_norms
from thresher.errors import InputError, NumericsError

BOTH = [export_onnx, export_torch]


def small(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 4),
    )
    model[1].running_mean.normal_()
    model[1].running_var.uniform_(0.5, 2)
    model[1].weight.data.normal_()
    return model


class Two(nn.Module):
    """Two inputs by name, two outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(5, 3)

    def forward(self, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        return {"sum": self.layer(x + y), "y": y * 2}


@pytest.mark.parametrize("export", BOTH)
@pytest.mark.parametrize("fold", [False, True])
def test_any_batch_size_gives_the_outputs_of_the_model(tmp_path: Path, export: Any, fold: bool) -> None:
    model = small().train()
    done = export(model, tmp_path / "x.pt2", torch.randn(1, 3, 9, 9), fold=fold)
    assert done.checked == (2, 3, 1)
    assert done.difference < 1e-5
    assert (done.folded, done.bytes) == (int(fold), (tmp_path / "x.pt2").stat().st_size)
    assert [path.name for path in tmp_path.iterdir()] == ["x.pt2"]
    assert model.training
    assert isinstance(model[1], nn.BatchNorm2d)
    x = torch.randn(7, 3, 9, 9)
    expected = model.eval()(x).detach()
    if export is export_onnx:
        assert difference(onnx_module.runner(tmp_path / "x.pt2")(x), expected) < 1e-5
    else:
        assert difference(torch.export.load(tmp_path / "x.pt2").module()(x), expected) < 1e-5


@pytest.mark.parametrize("export", BOTH)
def test_inputs_by_name_and_several_outputs(tmp_path: Path, export: Any) -> None:
    example = {"x": torch.randn(2, 5), "y": torch.randn(2, 5)}
    assert export(Two(), tmp_path / "x.pt2", example).difference < 1e-5


@pytest.mark.parametrize("export", BOTH)
def test_a_fixed_batch_is_checked_at_that_batch_alone(tmp_path: Path, export: Any) -> None:
    assert export(small(), tmp_path / "x.pt2", torch.randn(3, 3, 9, 9), dynamic_batch=False).checked == (3,)


@pytest.mark.parametrize("export", BOTH)
def test_outputs_that_differ_are_refused_with_the_difference_and_leave_no_file(
    tmp_path: Path, export: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(capturing, "difference", lambda *_: 0.25)
    with pytest.raises(NumericsError, match=r"differ by 0\.25"):
        export(small(), tmp_path / "x.pt2", torch.randn(2, 3, 9, 9))
    assert not list(tmp_path.iterdir())


def test_pruned_weights_that_the_runtime_gets_wrong_would_be_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = onnx_module.write_onnx

    def wrong(model: nn.Module, *args: Any, **kwargs: Any) -> None:
        twin = small(seed=1).eval()
        real(twin, *args, **kwargs)

    monkeypatch.setattr(onnx_module, "write_onnx", wrong)
    with pytest.raises(NumericsError):
        export_onnx(small(), tmp_path / "x.pt2", torch.randn(2, 3, 9, 9))
    assert not list(tmp_path.iterdir())


class Depends(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * 2 if float(x.sum()) > 0 else x


@pytest.mark.parametrize("export", BOTH)
def test_a_model_that_cannot_be_captured_is_refused_in_three_lines(tmp_path: Path, export: Any) -> None:
    with pytest.raises(InputError, match="Depends"):
        export(Depends(), tmp_path / "x.pt2", torch.randn(2, 3))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("export", BOTH)
def test_places_that_cannot_be_written_are_refused(tmp_path: Path, export: Any) -> None:
    for place in (tmp_path, tmp_path / "no" / "x.pt2"):
        with pytest.raises(InputError):
            export(small(), place, torch.randn(2, 3, 9, 9))


def test_the_exporter_is_quiet_and_its_loggers_get_their_levels_back(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    before = logging.getLogger("torch.onnx").level
    export_onnx(nn.Linear(3, 2), tmp_path / "x.pt2", torch.randn(2, 3))
    assert capfd.readouterr() == ("", "")
    assert logging.getLogger("torch.onnx").level == before


class Branching(nn.Module):
    """The layer's output is used by the norm and beside it: folding would change the sum."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.norm = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)
        self.norm.running_mean = torch.arange(4.0)

    def forward(self, x: Tensor) -> Tensor:
        y = self.layer(x)
        return self.norm(y) + y


class Tokens(nn.Module):
    """Batch norm over the tokens of a linear layer, as many as it has features."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.norm = nn.Linear(4, 4), nn.BatchNorm1d(4)
        self.norm.running_mean = torch.arange(4.0)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.layer(x))


@pytest.mark.parametrize(("model", "shape"), [(Branching(), (2, 3, 4, 4)), (Tokens(), (2, 4, 4))])
def test_a_norm_that_cannot_be_folded_is_found_out(model: nn.Module, shape: tuple[int, ...]) -> None:
    with pytest.raises(NumericsError, match="folded"):
        fold_batch_norms(model, torch.randn(shape))


def test_folding_keeps_zeros_and_leaves_norms_without_a_layer_or_statistics_alone() -> None:
    model = nn.Sequential(
        nn.BatchNorm1d(6),
        nn.Linear(6, 5),
        nn.BatchNorm1d(5),
        nn.ReLU(),
        nn.Linear(5, 5),
        nn.BatchNorm1d(5, track_running_stats=False),
    )
    with torch.no_grad():
        model[1].weight[::2] = 0
        model[2].running_var.uniform_(0.5, 2)
    x = torch.randn(8, 6)
    model[5].train()
    folded, count = fold_batch_norms(model[:4], x)
    assert count == 1
    assert torch.equal(folded[1].weight == 0, model[1].weight == 0)
    assert difference(folded(x), model[:4].eval()(x)) < 1e-6
    assert fold_batch_norms(nn.Sequential(nn.ReLU()), x)[1] == 0


def test_a_layer_that_runs_twice_or_shares_its_weight_is_not_folded() -> None:
    layer, norm = nn.Linear(4, 4), nn.BatchNorm1d(4)
    assert fold_batch_norms(nn.Sequential(layer, norm, layer), torch.randn(3, 4))[1] == 0
    other = nn.Linear(4, 4)
    other.weight = layer.weight
    assert fold_batch_norms(nn.Sequential(layer, norm, other), torch.randn(3, 4))[1] == 0


def test_a_language_model_is_captured_without_its_cache(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.GPT2Config(
        n_embd=16, n_layer=1, n_head=2, vocab_size=30, n_positions=16, bos_token_id=0, eos_token_id=0
    )
    model = transformers.GPT2LMHeadModel(config)
    done = export_torch(model, tmp_path / "x.pt2", {"input_ids": torch.randint(0, 30, (2, 8))})
    assert done.difference < 1e-5
    assert model.config.use_cache


def test_a_transformers_model_comes_back_from_its_folder(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, vocab_size=40
    )
    model = transformers.BertForMaskedLM(config)  # its decoder is tied to the embedding
    with torch.no_grad():
        model.bert.encoder.layer[0].intermediate.dense.weight[::2] = 0
    done = export_huggingface(model, tmp_path / "bert")
    assert "shards" not in "".join(capfd.readouterr())
    assert done.bytes == sum(path.stat().st_size for path in (tmp_path / "bert").iterdir())
    again = transformers.AutoModelForMaskedLM.from_pretrained(tmp_path / "bert", local_files_only=True)
    assert all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in model.state_dict().items())
    with pytest.raises(InputError, match="there already"):
        export_huggingface(model, tmp_path / "bert")
    model.bert.encoder.layer[0].intermediate.dense = nn.Linear(16, 8)
    model.bert.encoder.layer[0].output.dense = nn.Linear(8, 16)
    with pytest.raises(InputError, match=r"thresher\.save"):
        export_huggingface(model, tmp_path / "small")
    assert [path.name for path in tmp_path.iterdir()] == ["bert"]
    with pytest.raises(InputError, match="transformers"):
        export_huggingface(nn.Linear(2, 2), tmp_path / "linear")


def test_examples_are_resized_by_repeating_their_samples() -> None:
    example = {"x": torch.arange(6).view(3, 2), "y": torch.arange(3), "flag": True}
    wide = with_batch(example, 4)
    assert wide["x"].tolist() == [[0, 1], [2, 3], [4, 5], [0, 1]]
    assert wide["flag"] is True
    assert batch_of(with_batch((torch.ones(3), torch.ones(3, 2)), 1)) == 1
    assert arguments([1, 2]) == ((1, 2), {})
    for bad in ({"x": torch.ones(2), "y": torch.ones(3)}, torch.tensor(1.0), torch.ones(0, 3)):
        with pytest.raises(InputError):
            with_batch(bad, 2)
    with pytest.raises(InputError):
        with_batch(torch.ones(2), 0)


@pytest.mark.parametrize(
    ("given", "expected", "worst"),
    [
        ([1.0, 2.0], [1.0, 2.0], 0.0),
        ([20.0], [10.0], 1.0),
        ([0.5], [0.25], 1.0),
        ([2e-20], [1e-20], 1.0),
        ([0.0], [0.0], 0.0),
        ([float("nan"), 1.0], [float("nan"), 1.0], 0.0),
        ([1.0], [float("nan")], float("inf")),
        ([float("nan")], [1.0], float("inf")),
        ([float("inf")], [float("-inf")], float("inf")),
        ([1.0, 1.0], [1.0], float("inf")),
        ([], [], 0.0),
    ],
)
def test_difference_is_relative_to_the_largest_output_and_minds_nan(
    given: list[float], expected: list[float], worst: float
) -> None:
    assert difference(torch.tensor(given), torch.tensor(expected)) == pytest.approx(worst)


def test_outputs_without_tensors_are_refused() -> None:
    with pytest.raises(InputError):
        tensors({"a": 3})
    assert difference([torch.ones(1)], [torch.ones(1), torch.ones(1)]) == float("inf")
