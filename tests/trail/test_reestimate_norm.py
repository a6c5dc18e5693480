"""Claims about batch-norm statistics measured anew."""

import copy
import math
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import thresher
from thresher.errors import InputError, NumericsError


def batches(count: int = 4, size: int = 16) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [3 + 2 * torch.randn(size, 4, 5, 5, generator=generator) for _ in range(count)]


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.BatchNorm2d(4, momentum=0.3),
        nn.Conv2d(4, 8, 3),
        nn.BatchNorm2d(8),
        nn.Dropout(0.5),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 8),
        nn.BatchNorm1d(8, track_running_stats=False),
    )


def statistics(model: nn.Module) -> list[Tensor]:
    return [tensor.clone() for name, tensor in model.state_dict().items() if "running" in name or "tracked" in name]


def same(one: list[Tensor], other: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_statistics_are_the_means_over_batches_of_each_batchs_own() -> None:
    model = net()
    with torch.no_grad():
        model[0].running_mean.fill_(77.0)
    assert thresher.reestimate_norm(model, batches()) == 2
    per_batch = [x.transpose(0, 1).flatten(1) for x in batches()]
    torch.testing.assert_close(model[0].running_mean, torch.stack([x.mean(1) for x in per_batch]).mean(0))
    torch.testing.assert_close(model[0].running_var, torch.stack([x.var(1) for x in per_batch]).mean(0))
    assert int(model[0].num_batches_tracked) == 4


def test_it_gives_what_torch_gives_where_torch_can() -> None:
    model = nn.Sequential(*list(net())[:3])
    twin = copy.deepcopy(model)
    thresher.reestimate_norm(model, batches())
    torch.optim.swa_utils.update_bn(batches(), twin)
    assert all(torch.allclose(a, b) for a, b in zip(statistics(model), statistics(twin), strict=True))


def test_everything_else_is_as_before() -> None:
    model = net()
    model.train()
    model[2].eval()
    model[6].weight.requires_grad_(False)
    flags = [module.training for module in model.modules()]
    parameters = [parameter.detach().clone() for parameter in model.parameters()]
    drawn = torch.get_rng_state()
    thresher.reestimate_norm(model, batches())
    assert flags == [module.training for module in model.modules()]
    assert (model[0].momentum, model[2].momentum) == (0.3, 0.1)
    assert same(parameters, list(model.parameters()))
    assert [parameter.requires_grad for parameter in model.parameters()].count(False) == 1
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.equal(drawn, torch.get_rng_state())  # no dropout was drawn
    assert torch.is_grad_enabled()


def broken() -> Iterator[Tensor]:
    yield batches(1)[0]
    raise RuntimeError("the disk is gone")


@pytest.mark.parametrize(
    ("given", "error", "text"),
    [
        ([], InputError, "no batches"),
        (iter(()), InputError, "no batches"),
        ([batches(1)[0], torch.full((4, 4, 5, 5), math.nan)], NumericsError, "batch 2 with NaN"),
        ([{"input": torch.full((4, 4, 5, 5), math.inf)}], NumericsError, "batch 1 with NaN or infinity"),
        ([batches(1)[0], torch.zeros(4, 3, 5, 5)], InputError, "batch 2 of type Tensor"),
        ([torch.zeros(1, 4, 1, 1)], InputError, "drop_last"),
        ([()], InputError, "batch 1, which is empty"),
        ([batches(1)[0] * 1e30], NumericsError, "running_var of a BatchNorm2d"),
        (broken(), RuntimeError, "the disk is gone"),
    ],
)
def test_after_an_error_nothing_has_changed(given: object, error: type[Exception], text: str) -> None:
    model = net()
    thresher.reestimate_norm(model, batches(1))
    model.train()
    before = statistics(model)
    with pytest.raises(error, match=text):
        thresher.reestimate_norm(model, given)  # type: ignore[arg-type]
    assert same(before, statistics(model))
    assert model[0].momentum == 0.3
    assert all(module.training for module in model.modules())


def test_batches_may_be_tensors_tuples_lists_and_mappings() -> None:
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm2d(4)

        def forward(self, pixel_values: Tensor, labels: Tensor | None = None) -> Tensor:
            return self.norm(pixel_values)  # type: ignore[no-any-return]

    label = torch.zeros(16)
    for form in (
        batches(),
        [(x, label) for x in batches()],
        [[x, label] for x in batches()],
        [{"pixel_values": x, "labels": label} for x in batches()],
        [({"pixel_values": x}, label) for x in batches()],
        [((x,), label) for x in batches()],
    ):
        model = Named()
        assert thresher.reestimate_norm(model, form) == 1
        torch.testing.assert_close(model.norm.running_mean, torch.stack(batches()).mean((0, 1, 3, 4)))


def test_a_limit_draws_no_more_batches_than_it_says() -> None:
    drawn = iter(batches(5))
    model = net()
    thresher.reestimate_norm(model, drawn, limit=2)
    assert int(model[0].num_batches_tracked) == 2
    assert len(list(drawn)) == 3
    assert thresher.reestimate_norm(model, batches(2), limit=9) == 2
    for wrong in (0, -1, 1.5, True):
        with pytest.raises(InputError, match="limit"):
            thresher.reestimate_norm(model, batches(), limit=wrong)  # type: ignore[arg-type]


def test_a_model_without_batch_norm_is_left_alone_and_no_batch_is_drawn() -> None:
    drawn = iter(batches())
    assert thresher.reestimate_norm(nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2)), drawn) == 0
    assert len(list(drawn)) == 4


def test_a_norm_that_the_pass_does_not_reach_keeps_what_it_has() -> None:
    model = net()
    model.spare = nn.BatchNorm2d(3)
    model.forward = lambda x: nn.Sequential(*list(model.children())[:3])(x)  # type: ignore[method-assign]
    with torch.no_grad():
        model.spare.running_mean.fill_(5.0)
        model.spare.num_batches_tracked.fill_(9)
    assert thresher.reestimate_norm(model, batches()) == 2
    assert model.spare.running_mean.tolist() == [5.0, 5.0, 5.0]
    assert int(model.spare.num_batches_tracked) == 9


def test_it_works_while_a_model_is_being_pruned_and_after() -> None:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    pruner = thresher.prune(model, optimizer, "gmp:end=0.5", "sparsity=75%", steps=4)
    for x in batches():
        F.cross_entropy(model(x), torch.zeros(16, dtype=torch.long)).backward()
        optimizer.step()
    assert thresher.reestimate_norm(model, batches()) == 2
    attached = statistics(model)
    thresholds = pruner.process.thresholds()
    pruner.finish()
    assert thresher.reestimate_norm(model, batches()) == 2
    torch.testing.assert_close(statistics(model), attached)
    assert thresholds == pruner.process.thresholds()


def test_new_statistics_bring_a_shifted_network_back() -> None:
    model = net().eval()
    thresher.reestimate_norm(model, batches())
    with torch.no_grad():
        model[1].weight *= 0.1  # as pruning shrinks the activations
    out = model[:3](batches(1)[0])
    assert out.std() < 0.5
    thresher.reestimate_norm(model, batches())
    assert 0.9 < model[:3](batches(1)[0]).std() < 1.1
