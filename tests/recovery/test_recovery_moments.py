"""Second moments over batches: exact, streamed, masked."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from thresher.errors import InputError, NumericsError
from thresher.recovery import moments as streaming
from thresher.recovery.moments import SecondMoments, collect
from thresher.recovery.reading import channels_of, hidden_rows, reading_weight


def all_channels(module: nn.Module) -> Tensor:
    return torch.arange(channels_of(module))


@pytest.mark.parametrize(
    ("module", "shape"),
    [
        (nn.Linear(5, 3, bias=False), (4, 5)),
        (nn.Linear(5, 3, bias=False), (2, 7, 5)),
        (nn.Conv2d(4, 6, 3, stride=2, padding=1, bias=False), (2, 4, 9, 8)),
        (nn.Conv2d(4, 6, 3, padding=2, dilation=2, bias=False), (2, 4, 7, 7)),
        (nn.Conv2d(4, 6, (1, 3), groups=2, bias=False), (2, 4, 5, 5)),
        (nn.Conv2d(4, 6, 1, stride=2, bias=False), (2, 4, 5, 6)),
        (nn.Conv1d(4, 6, 3, stride=2, padding=1, bias=False), (2, 4, 9)),
        (nn.Conv2d(4, 6, (3, 2), padding=(2, 0), stride=(1, 2), dilation=(2, 1), bias=False), (2, 4, 7, 6)),
        (nn.Conv3d(4, 6, (1, 2, 3), padding=(0, 1, 2), bias=False), (2, 4, 3, 5, 4)),
    ],
    ids=str,
)
def test_weight_times_rows_is_the_layer(module: nn.Module, shape: tuple[int, ...]) -> None:
    inputs = torch.randn(shape)
    rows = hidden_rows(module, inputs, all_channels(module))
    output = module(inputs)
    output = output.reshape(-1, 3) if isinstance(module, nn.Linear) else output.flatten(2).mT.reshape(-1, 6)
    assert torch.allclose(rows @ reading_weight(module, all_channels(module)).T, output, atol=1e-5)


def test_channels_alone_sum_the_gram_over_taps() -> None:
    module = nn.Conv2d(3, 2, 3)
    weight = reading_weight(module, torch.tensor([2, 0]), taps=False)
    picked = module.weight.detach()[:, [2, 0]].flatten(2)
    assert torch.allclose(weight.T @ weight, torch.einsum("oit,ojt->ij", picked, picked), atol=1e-6)


def model_and_data() -> tuple[nn.Sequential, list[Tensor]]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 3, padding=1))
    return model, [torch.randn(3, 1, 6, 6) for _ in range(4)]


def test_batches_of_any_size_and_kind_give_the_same_sum(monkeypatch: pytest.MonkeyPatch) -> None:
    model, data = model_and_data()
    model.train()
    wanted = hidden_rows(model[3], model.eval()[:3](torch.cat(data)).detach(), torch.arange(4)).double()
    model.train()
    before = model[1].running_mean.clone()
    kinds = [data, [(batch, None) for batch in data], [torch.cat(data)], iter(data), [{"input": b} for b in data]]
    monkeypatch.setattr(streaming, "CHUNK", 100)  # several chunks for every batch
    for batches in kinds:
        moments = SecondMoments(model[3], torch.arange(4))
        collect(model, batches, {"3": moments})
        assert torch.allclose(moments.result(), wanted.T @ wanted, rtol=1e-6)
        assert moments.result().dtype == torch.float64
        assert moments.count == len(wanted)
    assert model.training
    assert torch.equal(model[1].running_mean, before)


def test_a_pass_ends_behind_the_last_reader() -> None:
    class Late(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise AssertionError("reached")

    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1), Late())
    assert collect(model, [torch.ones(1, 2)] * 3, {"1": SecondMoments(model[1], torch.arange(3))}, limit=2) == 2


class Tokens(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table, self.out = nn.Embedding(9, 4), nn.Linear(4, 2)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        return self.out(self.table(input_ids))


def test_padded_tokens_do_not_count() -> None:
    model, ids, mask = Tokens(), torch.tensor([[1, 2, 3], [4, 5, 8]]), torch.tensor([[1, 1, 1], [1, 0, 0]])
    moments = SecondMoments(model.out, torch.arange(4))
    collect(model, [{"input_ids": ids, "attention_mask": mask, "labels": ids}], {"out": moments})
    rows = model.table.weight.detach()[[1, 2, 3, 4]].double()
    assert moments.count == 4
    assert torch.allclose(moments.result(), rows.T @ rows)


def test_no_batches_bad_batches_and_nan() -> None:
    model, data = model_and_data()
    moments = SecondMoments(model[3], torch.arange(4))
    collect(model, [], {"3": moments})
    with pytest.raises(InputError, match="at least one batch"):
        moments.result()
    with pytest.raises(InputError, match="batch 2"):
        collect(model, [data[0], torch.ones(2)], {"3": moments})
    assert not model[3]._forward_pre_hooks
    collect(model, [data[0] * torch.nan], {"3": moments})
    with pytest.raises(NumericsError):
        moments.result()


def test_memory_does_not_grow_with_samples() -> None:
    model = nn.Linear(2, 1)

    def endless() -> Iterator[Tensor]:
        while True:
            yield torch.ones(8, 2)

    moments = SecondMoments(model, torch.arange(2))
    collect(nn.Sequential(model), endless(), {"0": moments}, limit=50)
    assert moments.result().tolist() == [[400.0, 400.0], [400.0, 400.0]]


def test_all_processes_sum_their_moments(monkeypatch: pytest.MonkeyPatch) -> None:
    def doubled(tensor: Tensor) -> None:  # two processes that saw the same
        tensor.mul_(2)

    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "all_reduce", doubled)
    moments = SecondMoments(nn.Linear(1, 1), torch.tensor([0]))
    moments.add(torch.tensor([[3.0]]))
    assert (moments.result().item(), moments.count, moments.items) == (18.0, 2, 2)
