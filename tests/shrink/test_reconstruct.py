"""Claims about `thresher.reconstruct`: sums are exact, later layers make up for earlier ones, streams are filled up,
norms carry the intercept, what cannot be fitted is left, and errors change nothing."""

import copy
import math

import pytest
import torch
from torch import nn
from torch.nn import functional

import thresher
from thresher.apps.data import ArrayData, Batches, data_roots, load_data
from thresher.apps.models import build_model, normalisation_of
from thresher.errors import InputError, NumericsError
from thresher.recovery.reading import hidden_rows
from thresher.shrinking.reconstruction.fitting import Fit
from thresher.structure import Cut, GroupPlan, ShrinkPlan

FILE = "weights/resnet20_cifar10.safetensors"
ROOT = next((place for place in data_roots() if (place / FILE).is_file()), None)


def apart(one, other, x):
    with torch.no_grad():
        return float((one(x) - other(x)).square().sum() / other(x).square().sum()) ** 0.5


def plan_of(producer, reader, keep, units, norm=None):
    sides = [(producer, "out"), (reader, "in")] + ([(norm, "width")] if norm else [])
    cuts = tuple(Cut(module=module, axis=axis, size=units, keep=keep) for module, axis in sides)
    return ShrinkPlan(model="Net", groups=(GroupPlan(name=producer, units=units, keep=keep, cuts=cuts),))


class Block(nn.Module):
    def __init__(self, wide=6, hidden=8):
        super().__init__()
        self.up, self.down = nn.Linear(wide, hidden), nn.Linear(hidden, wide, bias=False)

    def forward(self, x):
        return x + self.down(self.up(x))


class Images(nn.Module):
    """A stem, one residual block with batch norms, a depthwise layer, a head."""

    def __init__(self, channels=6):
        super().__init__()
        self.stem = nn.Conv2d(2, channels, 3, padding=1, bias=False)
        self.norm0 = nn.BatchNorm2d(channels)
        self.conv1 = nn.Conv2d(channels, 8, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(8)
        self.conv2 = nn.Conv2d(8, channels, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)
        self.depthwise = nn.Conv2d(channels, channels, 3, groups=channels)
        self.head = nn.Linear(channels, 3)
        for each in (self.norm0, self.norm1, self.norm2):
            each.running_mean.normal_()
            each.running_var.uniform_(0.5, 2)
            nn.init.uniform_(each.weight, 0.5, 1.5)
            nn.init.normal_(each.bias)

    def forward(self, x):
        x = torch.relu(self.norm0(self.stem(x)))
        hidden = functional.relu(self.norm1(self.conv1(x)))
        x = functional.relu(self.norm2(self.conv2(hidden)) + x)
        return self.head(functional.relu(self.depthwise(x)).mean((2, 3)))


@pytest.fixture
def images():
    torch.manual_seed(3)
    dense = Images().eval()
    return dense, plan_of("conv1", "conv2", (0, 2, 3, 6), 8, norm="norm1"), [torch.randn(24, 2, 7, 7) for _ in range(3)]


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(3, 4, 3, stride=2, padding=1),
        nn.Conv2d(3, 4, (1, 3), padding=(0, 2), dilation=(1, 2)),
        nn.Conv2d(3, 4, 1, stride=3),
        nn.Conv1d(3, 4, 5, padding=2),
        nn.Linear(3, 4),
    ],
    ids=str,
)
def test_the_fit_is_that_of_the_laid_out_system(layer):
    torch.manual_seed(0)
    shape = {nn.Conv2d: (9, 3, 8, 7), nn.Conv1d: (9, 3, 11), nn.Linear: (9, 5, 3)}[type(layer)]
    x = torch.randn(shape)
    wanted = torch.randn_like(layer(x))
    fit = Fit(layer)
    for part in (slice(4), slice(4, 9)):
        fit.add(x[part], wanted[part])
    rows = hidden_rows(layer, x, torch.arange(3), dtype=torch.float64)
    y = (wanted if isinstance(layer, nn.Linear) else wanted.flatten(2).transpose(1, 2)).reshape(len(rows), -1).double()
    present = layer.weight.detach().flatten(1).double()
    weight, bias = fit.solve(present, intercept=True, ridge=1e-12)
    laid_out = torch.linalg.lstsq(torch.cat([rows, torch.ones(len(rows), 1)], 1).double(), y).solution
    assert torch.allclose(torch.cat([weight, bias[:, None]], 1), laid_out.T, atol=1e-6)
    off = (y - rows @ weight.T - bias).norm() / y.norm()
    assert math.isclose(fit.error(weight, bias), float(off), rel_tol=1e-6)
    weight, bias = fit.solve(present, intercept=False, ridge=1e-12)
    assert torch.allclose(weight, torch.linalg.lstsq(rows, y).solution.T, atol=1e-6)
    assert not bias.any()


def test_a_unit_that_others_can_replace_leaves_no_error():
    torch.manual_seed(0)
    dense = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    with torch.no_grad():
        dense[0].weight[3], dense[0].bias[3] = 2 * dense[0].weight[1], 2 * dense[0].bias[1]
    plan = plan_of("0", "2", (0, 1, 2), 4)
    small, x = plan.apply(dense), torch.randn(64, 3)
    assert apart(small, dense, x) > 0.01
    fits = thresher.reconstruct(small, dense, [x], plan=plan, ridge=1e-9)
    assert [fit.name for fit in fits] == ["2"]
    assert fits[0].after < 1e-4 < fits[0].before
    assert apart(small, dense, x) < 1e-4


def test_a_later_layer_makes_up_for_what_a_stream_is_short_of():
    torch.manual_seed(1)
    dense = nn.Sequential(Block(), Block(), nn.Linear(6, 2))
    plan = plan_of("0.up", "0.down", (0, 5), 8)
    small, x = plan.apply(dense), torch.randn(200, 6)
    alone = copy.deepcopy(small)
    with torch.no_grad():  # the refit of its own layer is as far as one layer gets
        hidden, wanted = alone[0].up(x), dense[0].down(dense[0].up(x))
        alone[0].down.weight.copy_(torch.linalg.lstsq(hidden, wanted).solution.T)
    before = apart(alone, dense, x)
    fits = thresher.reconstruct(small, dense, [(x[:120], None), (x[120:], None)], plan=plan, ridge=1e-9)
    assert [fit.name for fit in fits] == ["0.down", "1.up", "1.down", "2"]
    assert apart(nn.Sequential(small[0]), nn.Sequential(dense[0]), x) > 0.1  # two units cannot stand for eight
    assert apart(small, dense, x) < 1e-3 < before


def test_a_batch_norm_takes_the_intercept_and_keeps_the_rest(images):
    dense, plan, data = images
    small = plan.apply(dense)
    given = copy.deepcopy(small)
    x = torch.cat(data)
    before = apart(small, dense, x)
    fits = thresher.reconstruct(small, dense, data, plan=plan)
    assert [fit.name for fit in fits] == ["conv2", "head"]  # what runs before the cut is right as it is
    assert all(fit.after < fit.before for fit in fits)
    assert apart(small, dense, x) < 0.8 * before
    changed = {name for name, tensor in small.state_dict().items() if not torch.equal(tensor, given.state_dict()[name])}
    norm = {f"norm2.{name}" for name in ("weight", "bias", "running_mean", "running_var")}
    assert changed == {"conv2.weight", "head.weight", "head.bias", *norm}


def test_batch_norms_are_ready_for_training(images):
    """In training mode they take the statistics of the batch: fine-tuning destroys a network that is off there."""
    dense, plan, data = images
    x = torch.cat(data)
    dense.train()
    for _ in range(200):  # running statistics of its own, as after training
        dense(x)
    dense.eval()
    small = plan.apply(dense)
    with torch.no_grad():  # a lineage leaves small scales behind
        small.norm1.weight.mul_(0.01)
        small.norm2.weight.mul_(-0.1)
    fits = thresher.reconstruct(small, dense, data, plan=plan)
    assert all(fit.after <= fit.before for fit in fits)
    again = thresher.reconstruct(copy.deepcopy(small), dense, data, plan=plan)
    assert all(abs(fit.before - was.after) < 1e-4 for fit, was in zip(again, fits, strict=True))
    with torch.no_grad():
        still = small(x)
        moving = small.train()(x)
    assert float((moving - still).norm() / still.norm()) < 0.02
    assert apart(small.eval(), dense, x) < 0.5


def test_a_batch_norm_without_weights_is_met_in_eval_mode():
    torch.manual_seed(2)
    dense = nn.Sequential(
        nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 6, bias=False), nn.BatchNorm1d(6, affine=False), nn.Linear(6, 2)
    )
    plan, x = plan_of("0", "2", (0, 1, 3, 4, 6, 7), 8), torch.randn(100, 4)
    for _ in range(100):
        dense.train()(x)
    dense.eval()
    small = plan.apply(dense)
    before = apart(small, dense, x)
    thresher.reconstruct(small, dense, [x], plan=plan)
    assert apart(small, dense, x) < before


def test_fitting_again_changes_next_to_nothing(images):
    dense, plan, data = images
    small = plan.apply(dense)
    thresher.reconstruct(small, dense, data, plan=plan, ridge=1e-9)
    once = copy.deepcopy(small)
    thresher.reconstruct(small, dense, data, plan=plan, ridge=1e-9)
    assert apart(small, once, torch.cat(data)) < 1e-4


def test_a_network_that_lost_nothing_stays_bit_for_bit(images):
    dense, _, data = images
    small = copy.deepcopy(dense)
    assert thresher.reconstruct(small, dense, data) == ()
    assert all(torch.equal(small.state_dict()[name], tensor) for name, tensor in dense.state_dict().items())


def test_what_cannot_be_fitted_is_left_and_the_dense_network_untouched(images):
    dense, plan, data = images
    state = {name: tensor.clone() for name, tensor in dense.state_dict().items()}
    small = plan.apply(dense).train()
    given = small.depthwise.weight.clone()
    thresher.reconstruct(small, dense, data, plan=plan)
    assert torch.equal(small.depthwise.weight, given)
    assert small.training
    assert not dense.training
    assert all(torch.equal(state[name], tensor) for name, tensor in dense.state_dict().items())
    other = plan.apply(dense)
    fits = thresher.reconstruct(other, dense, data, plan=plan, most_rows=10)
    assert [fit.name for fit in fits] == ["head"]


def test_without_the_plan_layers_that_lost_outputs_are_not_fitted():
    torch.manual_seed(1)
    dense = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 2))
    plan = plan_of("2", "4", (0, 1, 4), 6)
    first = plan_of("0", "2", (0, 1, 2), 6).apply(dense)
    small = plan.apply(first)
    x = torch.randn(50, 4)
    names = [fit.name for fit in thresher.reconstruct(copy.deepcopy(small), dense, [x])]
    assert names == ["4"]
    whole = ShrinkPlan(model="Net", groups=(*plan_of("0", "2", (0, 1, 2), 6).groups, *plan.groups))
    assert [fit.name for fit in thresher.reconstruct(small, dense, [x], plan=whole)] == ["2", "4"]


def test_streams_that_are_cut_are_filled_up_as_well():
    torch.manual_seed(0)
    dense = nn.Sequential(nn.Linear(5, 6), Block(), Block(), nn.Linear(6, 2))
    data = [torch.randn(100, 5)]
    found = thresher.shrink_plan(dense, "ispasp", "flops=60%", calibration=data, scope="across")
    assert found.model[0].out_features < 6
    before = apart(found.model, dense, data[0])
    thresher.reconstruct(found.model, dense, data, plan=found.plan)
    assert apart(found.model, dense, data[0]) < before


class Named(nn.Module):
    def __init__(self):
        super().__init__()
        self.up, self.down = nn.Linear(3, 6), nn.Linear(6, 2)

    def forward(self, first, second=None):
        return self.down(torch.relu(self.up(first if second is None else first + second)))


def test_batches_may_be_mappings_or_several_tensors():
    torch.manual_seed(0)
    dense, plan = Named(), plan_of("up", "down", (1, 2, 5), 6)
    x, y = torch.randn(40, 3), torch.randn(40, 3)
    results = []
    for batch in ({"second": y, "first": x, "labels": None}, ([x, y], None)):
        small = plan.apply(dense)
        thresher.reconstruct(small, dense, [batch], plan=plan)
        results.append(small.down.weight)
    assert torch.equal(*results)
    with pytest.raises(InputError, match="third"):
        thresher.reconstruct(plan.apply(dense), dense, [{"first": x, "third": y}], plan=plan)


class Branching(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 2)

    def forward(self, x):
        return self.layer(x) if x.sum() > 0 else x


def test_bad_input_is_named(images):
    dense, plan, data = images
    small = plan.apply(dense)
    with pytest.raises(InputError, match="different steps"):
        thresher.reconstruct(nn.Sequential(nn.Linear(2, 2)), dense, data)
    with pytest.raises(InputError, match=r"cannot trace[\s\S]*leave reconstruction out"):
        thresher.reconstruct(Branching(), Branching(), [torch.ones(1, 2)])
    with pytest.raises(InputError, match="no batches"):
        thresher.reconstruct(small, dense, iter(()), plan=plan)
    for ridge in (0.0, -1.0, float("nan"), "much"):
        with pytest.raises(InputError, match="ridge"):
            thresher.reconstruct(small, dense, data, plan=plan, ridge=ridge)
    with pytest.raises(InputError, match="batch 2, on which the dense network fails"):
        thresher.reconstruct(small, dense, [data[0], torch.randn(4, 3)], plan=plan)
    with pytest.raises(InputError, match="batch 2, on which the dense network fails"):
        thresher.reconstruct(small, dense, [data[0], torch.randn(4, 3)], plan=plan)
    with pytest.raises(InputError, match="limit=0"):
        thresher.reconstruct(small, dense, data, plan=plan, limit=0)


def test_after_an_error_the_weights_are_what_they_were(images):
    dense, plan, data = images
    with torch.no_grad():
        dense.head.bias[0] = float("nan")  # comes to light at the last layer, when others have been fitted
    small = plan.apply(dense)
    state = {name: tensor.clone() for name, tensor in small.state_dict().items()}
    with pytest.raises(NumericsError):
        thresher.reconstruct(small, dense, data, plan=plan)
    for name, tensor in small.state_dict().items():
        assert torch.equal(tensor, state[name]) or name == "head.bias"
    with pytest.raises(NumericsError):
        thresher.reconstruct(small, dense, [torch.full((2, 2, 7, 7), float("inf"))], plan=plan)


@pytest.mark.shared_data
@pytest.mark.skipif(ROOT is None, reason="no data folder beside the checkout, and THRESHER_DATA is not set")
def test_a_trained_network_gains_much():
    """CIFAR-10's ResNet-20 at half of its multiply-adds, 500 test images: at least 5 points on top of the refit."""
    data = load_data("cifar10")
    dense = build_model("resnet20", num_classes=10, input_shape=(3, 32, 32), weights="cifar10").eval()
    mean, std = normalisation_of(dense)

    def batches(part, count):
        some = ArrayData(part.images[:count], part.labels[:count])
        return list(Batches(some, 100, train=False, mean=mean, std=std))

    def accuracy(model):
        with torch.no_grad():
            return sum(int((model(x).argmax(1) == y).sum()) for x, y in test) / 5

    calibration, test = batches(data.train, 200), batches(data.test, 500)
    found = thresher.shrink_plan(dense, "ispasp", "flops=50%", calibration=calibration)
    cut = accuracy(found.model)
    thresher.reconstruct(found.model, dense, calibration, plan=found.plan)
    assert accuracy(found.model) > cut + 5
