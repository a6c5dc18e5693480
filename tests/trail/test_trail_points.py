"""Claims about adding to a trail: what is stored, what the run notices of it, which points stay."""

import copy
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import thresher
from thresher import Trail
from thresher.attach import latent
from thresher.errors import InputError, NumericsError
from thresher.methods import method_names
from thresher.operators import hard_threshold
from thresher.session import Pruner
from thresher.trail.grid import Grid

IMAGES = torch.randn(8, 1, 8, 8, generator=torch.Generator().manual_seed(1))
RECORD = {"model": "mine", "note": "ä"}


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.1), nn.Flatten(), nn.Linear(288, 10)
    )


def begin(method: str = "gmp:end=0.8", budget: str = "sparsity=90%", steps: int = 20, **more: object) -> Pruner:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    return thresher.prune(model, optimizer, method, budget, steps=steps, record=RECORD, **more)  # type: ignore[arg-type]


def train(pruner: Pruner, steps: int) -> None:
    optimizer = pruner._optimizer
    assert optimizer is not None
    for _ in range(steps):
        optimizer.zero_grad()
        F.cross_entropy(pruner.model(IMAGES), torch.arange(8)).backward()
        optimizer.step()


def one_shot(sparsity: float, step: int, width: int = 40) -> Pruner:
    torch.manual_seed(step)
    pruner = thresher.prune(nn.Linear(width, width), None, "magnitude", {"sparsity": sparsity})
    pruner.step = step
    return pruner


def test_a_point_knows_cost_and_origin(tmp_path: Path) -> None:
    trail = Trail(tmp_path / "trail", dense_accuracy=92.0)
    pruner = begin()
    train(pruner, 20)
    point = trail.add(pruner, accuracy=90.5, images=500, loss=0.25)
    assert point is not None
    entries, zeros = 72 + 2880, int(0.9 * (72 + 2880))
    assert (point.step, point.entries, point.zeros) == (20, entries, zeros)
    assert (point.params, point.dense_params) == (entries + 34 - zeros, entries + 34)
    weights = pruner.plain_state_dict()
    left = [int((weights[name] != 0).sum()) for name in ("0.weight", "5.weight")]
    assert (point.flops, point.dense_flops) == (36 * left[0] + left[1], 36 * 72 + 2880)
    assert (point.accuracy, point.images, point.drop, point.metrics) == (90.5, 500, 1.5, {"loss": 0.25})
    assert point.thresholds == dict(zip(("0.weight", "5.weight"), pruner.process.thresholds(), strict=True))
    assert point.method["kind"] == "gmp"
    assert (point.budget, point.model) == ("sparsity=90%", RECORD)
    assert point.stored == (tmp_path / "trail" / "point-00000020.safetensors").stat().st_size
    (again,) = Trail(tmp_path / "trail").points
    assert again.to_dict() == point.to_dict()


def test_the_stored_network_is_the_present_one_in_its_plain_class_bit_for_bit(tmp_path: Path) -> None:
    trail, pruner = Trail(tmp_path, precision="float32"), begin()
    train(pruner, 13)
    point = trail.add(pruner)
    assert point is not None
    loaded = trail.load(point, net()).eval()
    expected = pruner.plain_state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in loaded.state_dict().items())
    pruner.model.eval()
    assert torch.equal(loaded(IMAGES), pruner.model(IMAGES))
    assert not any(torch.signbit(w[w == 0]).any() for n, w in loaded.state_dict().items() if n in point.thresholds)


def test_bytes_are_those_of_the_file_that_save_writes_of_the_loaded_network(tmp_path: Path) -> None:
    trail, pruner = Trail(tmp_path / "trail"), begin()
    for _ in range(4):
        train(pruner, 5)
        point = trail.add(pruner)
        assert point is not None
        assert thresher.save(trail.load(point, net()), tmp_path / "file", record=RECORD).bytes == point.bytes


def test_the_run_goes_on_bit_for_bit_with_or_without_a_trail(tmp_path: Path) -> None:
    loader = DataLoader(TensorDataset(IMAGES), batch_size=4)

    def measure(network: nn.Module) -> float:
        network.train()  # a careless function: it changes statistics, draws numbers and moves weights
        for (inputs,) in loader:
            network(inputs + torch.randn(()))
        with torch.no_grad():
            next(network.parameters()).zero_()
        return 50.0

    def run(trail: Trail | None) -> tuple[dict[str, Tensor], Tensor]:
        pruner = begin("lats")
        for _ in range(20):
            train(pruner, 1)
            flags = [module.training for module in pruner.model.modules()]
            if trail is not None:
                trail.due(pruner)
                trail.add(pruner, accuracy=measure)
            assert flags == [module.training for module in pruner.model.modules()]
        state = {**pruner.model.state_dict(), **{str(n): t for n, t in enumerate(pruner.trace.thresholds)}}
        pruner.finish()
        return {**state, **pruner.model.state_dict()}, torch.rand(3)

    trail = Trail(tmp_path)
    (plain, drawn), (watched, after) = run(None), run(trail)
    assert torch.equal(drawn, after)
    for name, tensor in plain.items():
        assert torch.equal(torch.as_tensor(tensor), torch.as_tensor(watched[name])), name
    assert not any((trail.state_dict(point)["0.weight"] == 0).all() for point in trail.points)


def test_what_a_measurement_does_to_the_network_does_not_reach_what_is_stored(tmp_path: Path) -> None:
    def measure(network: nn.Module) -> float:
        with torch.no_grad():
            for tensor in network.state_dict().values():
                tensor.fill_(7)
        return 1.0

    for precision in ("float16", "float32"):
        trail, pruner = Trail(tmp_path / precision, precision=precision), begin()
        train(pruner, 5)
        point = trail.add(pruner, accuracy=measure)
        assert point is not None
        for name, tensor in trail.state_dict(point).items():
            torch.testing.assert_close(tensor, pruner.plain_state_dict()[name], rtol=2**-11, atol=2**-25)


def test_weights_are_read_in_eval_mode(tmp_path: Path) -> None:
    pruner = begin("lats:threshold=0.05,schedule=linear", budget=None)  # type: ignore[arg-type]
    train(pruner, 10)
    shell = pruner.process.shell(0)
    soft = type(
        "Soft",
        (type(shell),),
        {"forward": lambda self, w: w if self.training else hard_threshold(w, torch.tensor(0.1))},
    )
    shell.__class__ = soft
    assert bool((pruner.model[0].weight != 0).all())  # type: ignore[index, union-attr]
    trail = Trail(tmp_path)
    point = trail.add(pruner)
    assert point is not None
    expected = hard_threshold(latent(pruner.targets[0]).detach(), torch.tensor(0.1))
    assert torch.equal(trail.state_dict(point)["0.weight"] == 0, expected == 0)
    assert 0 < int((expected == 0).sum()) < 72
    assert shell.training


@pytest.mark.parametrize("method", method_names())
def test_every_registered_method_can_leave_a_trail_without_noticing(tmp_path: Path, method: str) -> None:
    fresh = net()

    def run(trail: Trail | None) -> dict[str, Tensor]:
        pruner = begin(method, steps=12)
        for _ in range(3):
            train(pruner, 4)
            if trail is not None:
                point = trail.add(pruner, keep=True)
                assert point is not None
                pruner.model.eval()
                state, outputs = trail.state_dict(point), pruner.model(IMAGES)
                pruner.model.train()
                assert point.zeros == sum(int((state[name] == 0).sum()) for name in point.thresholds)
                assert point.dense_params == sum(each.numel() for each in fresh.parameters())
                torch.testing.assert_close(trail.load(point, fresh).eval()(IMAGES), outputs, rtol=1e-2, atol=1e-3)
        pruner.finish()
        return pruner.model.state_dict()

    alone, watched = run(None), run(Trail(tmp_path))
    assert all(torch.equal(tensor, watched[name]) for name, tensor in alone.items())


def test_half_precision_keeps_exactly_the_zeros_and_measures_what_it_stores(tmp_path: Path) -> None:
    trail, pruner, seen = Trail(tmp_path), begin(), []
    train(pruner, 20)

    def measure(network: nn.Module) -> float:
        seen.append(network(IMAGES))
        return 77.0

    point = trail.add(pruner, accuracy=measure, twice=lambda network: 2.0)
    assert point is not None
    assert (point.accuracy, point.metrics) == (77.0, {"twice": 2.0})
    exact, stored = pruner.plain_state_dict(), trail.state_dict(point)
    for name in ("0.weight", "5.weight"):
        assert stored[name].dtype == torch.float32
        assert torch.equal(stored[name] == 0, exact[name] == 0)
        assert not torch.equal(stored[name], exact[name])
        torch.testing.assert_close(stored[name], exact[name], rtol=2**-11, atol=2**-25)
    assert torch.equal(stored["1.running_mean"], exact["1.running_mean"])
    assert torch.equal(trail.load(point, net()).eval()(IMAGES), seen[0])


def test_a_number_as_accuracy_is_stored_with_the_very_network_that_it_was_measured_on(tmp_path: Path) -> None:
    trail, pruner = Trail(tmp_path / "auto"), begin()
    train(pruner, 20)
    point = trail.add(pruner, accuracy=77.0)
    assert point is not None
    assert torch.equal(trail.state_dict(point)["5.weight"], pruner.plain_state_dict()["5.weight"])
    with pytest.raises(InputError, match="a function that measures"):
        Trail(tmp_path / "half", precision="float16").add(pruner, accuracy=77.0)
    assert not (tmp_path / "half").exists()


@pytest.mark.parametrize("value", [1e-9, 1e9])
def test_a_tensor_that_16_bits_cannot_hold_is_stored_whole(tmp_path: Path, value: float) -> None:
    pruner = one_shot(0.5, 1)
    with torch.no_grad():
        latent(pruner.targets[0])[0, 0] = value
        pruner.process.shell(0).mask[0, 0] = True  # type: ignore[index]
    trail = Trail(tmp_path, precision="float16")
    point = trail.add(pruner)
    assert point is not None
    weight = trail.state_dict(point)["weight"]
    assert weight[0, 0] == torch.tensor(value)
    assert torch.equal(weight, pruner.plain_state_dict()["weight"])


def test_double_and_half_models_come_back_in_their_own_type(tmp_path: Path) -> None:
    for dtype in (torch.float64, torch.bfloat16, torch.float16):
        model = net().to(dtype)
        pruner = thresher.prune(model, None, "magnitude", "sparsity=80%")
        trail = Trail(tmp_path / str(dtype))
        point = trail.add(pruner)
        assert point is not None
        state = trail.load(point, net().to(dtype)).state_dict()
        assert {tensor.dtype for name, tensor in state.items() if "tracked" not in name} == {dtype}
        assert int((state["5.weight"] == 0).sum() + (state["0.weight"] == 0).sum()) == point.zeros
        assert (point.flops, point.dense_flops) == (None, None)


def test_tied_tensors_stay_tied(tmp_path: Path) -> None:
    def tied() -> nn.Sequential:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 16))
        model[2].weight = model[0].weight
        return model

    model = tied()
    pruner = thresher.prune(model, None, "magnitude", "sparsity=75%")
    trail = Trail(tmp_path)
    point = trail.add(pruner)
    assert point is not None
    assert (point.entries, point.dense_params) == (256, 256 + 32)
    state = trail.state_dict(point)
    assert state["0.weight"] is state["2.weight"]
    loaded = trail.load(point, tied())
    assert loaded[2].weight is loaded[0].weight
    assert int((loaded[0].weight == 0).sum()) == 192


def test_a_finished_pruner_is_a_point_like_any_other(tmp_path: Path) -> None:
    trail, pruner = Trail(tmp_path), begin("lats")
    train(pruner, 20)
    report = pruner.finish()
    point = trail.add(pruner, accuracy=80.0, keep=True)
    assert point is not None
    assert (point.zeros, point.flops, point.bytes) == (report.zeros, report.macs, report.bytes)
    assert torch.equal(trail.state_dict(point)["5.weight"], pruner.model.state_dict()["5.weight"])


def test_nan_weights_are_refused_and_leave_nothing(tmp_path: Path) -> None:
    pruner = one_shot(0.5, 1)
    with torch.no_grad():
        latent(pruner.targets[0]).fill_(math.nan)
    with pytest.raises(NumericsError, match="weight"):
        Trail(tmp_path / "trail").add(pruner)
    assert not (tmp_path / "trail").exists()


@pytest.mark.parametrize(
    "wrong",
    [
        {"accuracy": math.nan},
        {"accuracy": "high"},
        {"accuracy": lambda network: math.inf},
        {"accuracy": 1.0, "loss": math.nan},
        {"accuracy": 1.0, "sparsity": 0.5},
        {"accuracy": 1.0, "images": 2.5},
    ],
)
def test_values_that_are_no_numbers_are_refused(tmp_path: Path, wrong: dict[str, object]) -> None:
    with pytest.raises(InputError):
        Trail(tmp_path).add(one_shot(0.5, 1), **wrong)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_numbers_of_torch_are_numbers(tmp_path: Path) -> None:
    point = Trail(tmp_path).add(one_shot(0.5, 1), accuracy=torch.tensor(91.5))  # type: ignore[arg-type]
    assert point is not None
    assert point.accuracy == 91.5


def test_one_point_stays_in_a_stretch_the_more_accurate_then_the_later(tmp_path: Path) -> None:
    trail = Trail(tmp_path, points=3, target=0.8)  # edges at 1x, 3x, 5x: 0, 66.7, 80 %
    for step, sparsity, accuracy, stored in (
        (1, 0.10, 90.0, True),
        (2, 0.20, 89.0, False),
        (3, 0.30, 90.0, True),
        (4, 0.70, 80.0, True),
        (5, 0.75, 85.0, True),
        (6, 0.80, 70.0, True),
        (7, 0.99, 60.0, False),
    ):
        assert (trail.add(one_shot(sparsity, step), accuracy=accuracy) is not None) == stored, step
    assert [point.step for point in trail.points] == [3, 5, 6]


def test_more_images_beat_a_better_number_and_kept_points_are_outside_the_grid(tmp_path: Path) -> None:
    trail = Trail(tmp_path, points=1)
    assert trail.add(one_shot(0.5, 1), accuracy=95.0, images=100)
    assert trail.add(one_shot(0.6, 2), accuracy=90.0, images=1000)
    assert trail.add(one_shot(0.6, 3), accuracy=94.0, images=100) is None
    assert trail.add(one_shot(0.7, 4), accuracy=50.0, keep=True)
    assert trail.add(one_shot(0.8, 5), accuracy=91.0, images=1000)
    assert [point.step for point in trail.points] == [4, 5]


def test_without_accuracies_the_latest_of_a_stretch_stays(tmp_path: Path) -> None:
    trail = Trail(tmp_path, points=2, target=0.5)
    for step in (1, 2, 3):
        assert trail.add(one_shot(0.1 * step, step)) is not None
    assert [point.step for point in trail.points] == [3]


def test_a_second_point_of_one_step_takes_the_place_of_the_first(tmp_path: Path) -> None:
    trail = Trail(tmp_path)
    trail.add(one_shot(0.5, 7), accuracy=80.0)
    trail.add(one_shot(0.5, 7), accuracy=70.0)
    assert [(point.step, point.accuracy) for point in trail.points] == [(7, 70.0)]


def test_due_until_the_stretch_has_a_point(tmp_path: Path) -> None:
    trail = Trail(tmp_path)
    assert trail.due(one_shot(0.5, 1))
    trail.add(one_shot(0.5, 1), accuracy=1.0)
    assert not trail.due(one_shot(0.6, 2))
    assert trail.due(one_shot(0.7, 2))


@pytest.mark.parametrize("entries", [7, 100, 999, 60_896, 272_474, 25_000_000])
@pytest.mark.parametrize(("points", "target"), [(20, 0.95), (5, 0.5), (2, 0.999), (1, 0.9)])
def test_a_budget_met_to_one_weight_reaches_its_edge(entries: int, points: int, target: float) -> None:
    grid = Grid(points=points, target=target)
    assert grid.cell(int(target * entries + 1e-9), entries) == points - 1
    assert grid.cell(entries, entries) == points - 1
    assert grid.cell(0, entries) == (0 if points > 1 and entries > 7 else grid.cell(0, entries))
    cells = [grid.cell(zeros, entries) for zeros in range(0, entries + 1, max(entries // 100, 1))]
    assert cells == sorted(cells)


def test_twenty_points_of_a_run_to_95_percent_cost_less_than_three_dense_files(tmp_path: Path) -> None:
    trail = Trail(tmp_path / "trail", precision="float16")
    for step, factor in enumerate(range(1, 21)):
        trail.add(one_shot(1 - 1 / factor, step, width=300))
    assert len(trail.points) == 20
    dense = thresher.save(nn.Linear(300, 300), tmp_path / "dense").bytes
    stored = sum(path.stat().st_size for path in (tmp_path / "trail").iterdir())
    assert stored == sum(point.stored for point in trail.points)
    assert stored < 3 * dense


def test_a_trail_goes_on_with_the_settings_it_was_begun_with(tmp_path: Path) -> None:
    Trail(tmp_path, dense_accuracy=90.0, points=4, target=0.9).add(one_shot(0.5, 1), accuracy=89.0)
    again = Trail(tmp_path)
    assert (again.dense_accuracy, again._grid) == (90.0, Grid(points=4, target=0.9))
    Trail(tmp_path, points=4)
    with pytest.raises(InputError, match="points=5"):
        Trail(tmp_path, points=5)
    with pytest.raises(InputError, match=r"dense_accuracy=91\.0"):
        Trail(tmp_path, dense_accuracy=91.0)


def test_a_dense_accuracy_may_come_later(tmp_path: Path) -> None:
    Trail(tmp_path).add(one_shot(0.5, 1), accuracy=89.0)
    with pytest.raises(InputError, match="dense_accuracy"):
        Trail(tmp_path).pick(accuracy_drop=1)
    assert Trail(tmp_path, dense_accuracy=90.0).pick(accuracy_drop=1).drop == 1.0


@pytest.mark.parametrize(
    "wrong",
    [
        {"points": 0},
        {"points": 2.5},
        {"target": 1.0},
        {"target": 0.0},
        {"precision": "int8"},
        {"dense_accuracy": math.nan},
    ],
)
def test_settings_that_make_no_trail_are_refused(tmp_path: Path, wrong: dict[str, object]) -> None:
    with pytest.raises(InputError):
        Trail(tmp_path, **wrong)  # type: ignore[arg-type]


def test_loading_into_another_network_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    trail, pruner = Trail(tmp_path), begin()
    train(pruner, 5)
    point = trail.add(pruner)
    assert point is not None
    with pytest.raises(InputError, match="finish"):
        trail.load(point, pruner.model)
    for other in (nn.Linear(3, 3), net().half()):
        before = copy.deepcopy(other.state_dict())
        with pytest.raises(InputError, match="tensors differ"):
            trail.load(point, other)
        assert all(torch.equal(tensor, before[name]) for name, tensor in other.state_dict().items())


def test_text_forms(tmp_path: Path) -> None:
    trail = Trail(tmp_path / "runs" / "trail", dense_accuracy=90.0)
    assert "0 points" in repr(trail)
    trail.add(one_shot(0.5, 1), accuracy=89.0)
    trail.add(one_shot(0.9, 2), accuracy=80.0, images=2000)
    assert trail.name == "runs"
    assert "2 points, 50.0% to 90.0% zeros" in repr(trail)
    lines = trail.table().splitlines()
    assert lines[0].split() == [
        "step",
        "sparsity",
        "multiply-adds",
        "bytes",
        "accuracy",
        "images",
        "under",
        "dense",
        "front",
    ]
    assert lines[3].split() == ["2", "90.00%", "?", f"{trail.points[1].bytes:,}", "80.00", "2,000", "10.00", "*"]
