"""`compile` on whole networks: torch's numbers, what runs where, and what is refused."""

import copy
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from thresher.deploy.engine import Compiled, build, compile, load_compiled
from thresher.deploy.engine import library as library_module
from thresher.errors import InputError, NumericsError, StateError

pytestmark = pytest.mark.usefixtures("engine_library")


def sparse(model: nn.Module, share: float = 0.9) -> nn.Module:
    torch.manual_seed(1)
    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            module.weight.data[torch.rand(module.weight.shape) < share] = 0
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    return model.eval()


class Residual(nn.Module):
    """Two convolutions, a strided shortcut, a squeeze-and-excite, a concatenation."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.Conv2d(8, 8, 3, padding=1)
        self.norm, self.short = nn.BatchNorm2d(8), nn.Conv2d(3, 8, 1, 2)
        self.squeeze, self.excite = nn.Conv2d(8, 4, 1), nn.Conv2d(4, 8, 1)
        self.depthwise, self.head = nn.Conv2d(16, 16, 5, padding=2, groups=16), nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu6(self.norm(self.one(x)))
        y = F.relu(self.two(y) + self.short(x))
        scale = torch.sigmoid(self.excite(F.silu(self.squeeze(F.adaptive_avg_pool2d(y, 1)))))
        y = torch.cat([y * scale, F.max_pool2d(y, 3, 1, 1)], 1)
        return self.head(F.hardswish(self.depthwise(y)).mean((2, 3)))


class Block(nn.Module):
    """A transformer block over patches, with a class token."""

    def __init__(self) -> None:
        super().__init__()
        self.patch, self.token = nn.Conv2d(3, 24, 4, 4), nn.Parameter(torch.randn(1, 1, 24))
        self.place = nn.Parameter(torch.randn(1, 17, 24))
        self.norm, self.qkv = nn.LayerNorm(24), nn.ModuleList(nn.Linear(24, 24) for _ in range(3))
        self.out, self.up, self.down = nn.Linear(24, 24), nn.Linear(24, 48), nn.Linear(48, 24)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1) + self.place
        q, k, v = (f(self.norm(x)).unflatten(2, (3, 8)).transpose(1, 2) for f in self.qkv)
        x = x + self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return (x + self.down(F.gelu(self.up(self.norm(x)))))[:, 0]


def mobile() -> nn.Module:
    def pair(c: int, d: int, stride: int) -> list[nn.Module]:
        depthwise = nn.Conv2d(c, c, 3, stride, 1, groups=c, bias=False)
        return [depthwise, nn.BatchNorm2d(c), nn.ReLU6(), nn.Conv2d(c, d, 1), nn.BatchNorm2d(d), nn.Hardswish()]

    return nn.Sequential(nn.Conv2d(3, 11, 3, 2, 1), *pair(11, 18, 2), *pair(18, 13, 1), *pair(13, 7, 2))


def plain() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 9, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(9 * 49, 7))


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "residual": (Residual, (3, 16, 17)),
    "mobile": (mobile, (3, 45, 67)),
    "transformer": (Block, (3, 16, 16)),
    "plain": (plain, (3, 16, 16)),
    "perceptron": (lambda: nn.Sequential(nn.Linear(20, 33), nn.GELU(), nn.Linear(33, 4), nn.Tanh()), (20,)),
    "tokens": (lambda: nn.Sequential(nn.Linear(20, 33), nn.GELU(), nn.Linear(33, 20)), (11, 20)),
    "sequence": (lambda: nn.Sequential(nn.Conv1d(4, 8, 5, 2, 2), nn.SiLU(), nn.Conv1d(8, 3, 3)), (4, 31)),
}


def only(model: nn.Module, example: object, **more: object) -> Compiled:
    return compile(model, example, engines=("thresher",), limit=0.3, **{"threads": 1, **more})  # type: ignore[arg-type]


def differs(got: Tensor, right: Tensor) -> float:
    right = right.detach()
    return float((got - right).abs().max() / right.abs().max().clamp(min=1e-30))


@pytest.mark.parametrize("name", NETWORKS)
def test_a_compiled_network_is_torchs_for_every_batch_size(name: str) -> None:
    make, shape = NETWORKS[name]
    torch.manual_seed(0)
    model = sparse(make())
    for batch, threads in ((1, 1), (13, 2)):
        fast = only(model, torch.randn(batch, *shape), threads=threads)
        assert fast.report().winner == "thresher"
        assert not [layer for layer in fast.report().layers if layer.runs == "torch"]
        for other in (batch, 1, 33):
            x = torch.randn(other, *shape)
            assert differs(fast(x), model(x)) < 1e-5
        assert fast(torch.randn(0, *shape)).shape == model(torch.randn(1, *shape))[:0].shape


@pytest.mark.parametrize("isa", ["portable", "avx2", "avx512"])
def test_each_instruction_set_can_be_forced(isa: str, monkeypatch: pytest.MonkeyPatch) -> None:
    handle = library_module.native().handle
    assert handle is not None
    if not handle.thr_has_isa(library_module.ISAS.index(isa)):
        pytest.skip("not on this processor")
    model, x = sparse(Residual()), torch.randn(2, 3, 16, 17)
    monkeypatch.setenv(library_module.VARIABLE, isa)
    fast = only(model, x)
    assert fast.report().isa == isa
    assert differs(fast(x), model(x)) < 1e-5


def test_channels_last_and_strided_inputs_are_read_as_they_lie() -> None:
    model, x = sparse(Residual()), torch.randn(2, 3, 16, 34)
    fast = only(model, x[..., ::2])
    assert differs(fast(x[..., ::2]), model(x[..., ::2])) < 1e-5
    last = x[..., :17].to(memory_format=torch.channels_last)
    assert differs(fast(last), model(last)) < 1e-5


class Strange(nn.Module):
    """An operator that the engine does not have, between two that it has."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        y = self.one(x)
        z = torch.cumsum(y, 3)
        return {"sum": self.two(z) + y, "raw": z}


def test_what_the_engine_does_not_know_runs_in_torch_and_the_report_says_so() -> None:
    model, x = Strange().eval(), torch.randn(2, 3, 8, 9)
    fast = only(model, x)
    assert [layer.reason for layer in fast.report().layers if layer.runs == "torch"] == [
        "aten.cumsum: not among the engine's operators"
    ]
    got, right = fast(x), model(x)
    assert set(got) == {"sum", "raw"}
    assert differs(got["sum"], right["sum"]) < 1e-5
    assert differs(got["raw"], right["raw"]) < 1e-5
    with pytest.raises(InputError, match="compile again"):
        fast(x[:1])
    with pytest.raises(StateError, match="run in torch"):
        fast.save("nowhere")


class Changing(nn.Module):
    """A tensor that is read after it was changed in place."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Conv2d(3, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.one(x)
        y.relu_()
        z = y.mul_(2.0)
        return y + z


def test_changes_in_place_are_seen_by_later_readers() -> None:
    model, x = Changing().eval(), torch.randn(1, 3, 5, 5)
    assert differs(only(model, x)(x), model(x)) < 1e-5


@pytest.mark.parametrize(
    ("wrong", "what"),
    [
        (torch.zeros(1, 3, 16, 18), "shape"),
        (torch.zeros(3, 16, 17), "shape"),
        (torch.zeros(1, 3, 16, 17, dtype=torch.float64), "float64"),
        (torch.zeros(1, 3, 16, 17, device="meta"), "meta"),
        ("text", "str"),
    ],
)
def test_other_shapes_types_and_devices_are_refused(wrong: object, what: str) -> None:
    fast = only(sparse(Residual()), torch.zeros(1, 3, 16, 17))
    with pytest.raises(InputError, match=what):
        fast(wrong)
    with pytest.raises(InputError):
        fast(torch.zeros(1, 3, 16, 17), torch.zeros(1))


def test_bad_arguments_of_compile_are_refused() -> None:
    model, x = plain(), torch.zeros(1, 3, 16, 16)
    for bad in ({"engines": ()}, {"engines": ("tvm",)}, {"threads": 0}, {"isa": "sse"}):
        with pytest.raises(InputError):
            compile(model, x, **bad)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="CPU"):
        compile(model, x.to("meta"))
    with pytest.raises(InputError, match=r"torch\.export"):
        only(Branching(), x)


class Branching(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + 1 if float(x.sum()) > 0 else x - 1


def test_a_model_that_cannot_be_captured_runs_in_torch_with_a_note() -> None:
    fast = compile(Branching(), torch.ones(2, 3), threads=1)
    assert fast.report().winner == "torch"
    assert "dense fallback" in fast.report().note
    assert torch.equal(fast(torch.ones(2, 3)), torch.full((2, 3), 2.0))


def test_without_the_library_torch_runs_and_the_report_says_dense_fallback(monkeypatch: pytest.MonkeyPatch) -> None:
    import thresher.deploy.engine.compiling as module

    monkeypatch.setattr(module, "native", lambda: library_module.Native(None, "no compiler"))
    model, x = sparse(Residual()), torch.randn(1, 3, 16, 17)
    fast = compile(model, x, threads=1)
    assert fast.report().winner == "torch"
    assert fast.report().isa == "none"
    assert "dense fallback: no compiler" in str(fast.report())
    assert torch.equal(fast(x), model(x))


def test_a_wrong_result_is_never_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    import thresher.deploy.engine.compiling as module

    monkeypatch.setattr(module, "_error", lambda *_: 2e-5)
    with pytest.raises(NumericsError):
        only(plain(), torch.randn(1, 3, 16, 16))
    fast = compile(plain(), torch.randn(1, 3, 16, 16), threads=1, limit=0.1)
    assert fast.report().winner == "torch"
    assert "away from torch" in fast.report().note


def test_training_flags_come_back_and_batch_norm_uses_its_running_statistics() -> None:
    model = sparse(Residual()).train()
    x = torch.randn(3, 3, 16, 17)
    fast = only(model, x)
    assert all(module.training for module in model.modules())
    assert differs(fast(x), model.eval()(x)) < 1e-5


def test_a_saved_plan_loads_with_equal_results_and_needs_no_model(tmp_path: Path) -> None:
    for name in ("residual", "transformer", "mobile"):
        make, shape = NETWORKS[name]
        model, x = sparse(make()), torch.randn(4, *shape)
        fast = only(model, x)
        fast.save(tmp_path / "fast.safetensors")
        again = load_compiled(tmp_path / "fast.safetensors")
        assert torch.equal(again(x), fast(x))
        assert again.report().layers == fast.report().layers
        assert differs(load_compiled(tmp_path / "fast.safetensors", threads=2)(x[:1]), model(x[:1])) < 1e-5


def test_an_altered_or_foreign_file_is_refused(tmp_path: Path) -> None:
    from thresher.deploy.storage import load_state, save

    path = tmp_path / "fast.safetensors"
    only(sparse(Residual()), torch.randn(1, 3, 16, 17)).save(path)
    tensors, record = load_state(path)
    for where, value in (
        (("graph", "steps", 1, "write"), 999),
        (("graph", "steps", 1, "attributes"), {}),
        (("graph", "blobs", 1, 0), 4096),
        (("graph", "outputs", 0, "blob"), -1),
        (("graph", "outputs", 0, "shape"), [50]),
        (("images",), 0),
        (("blockings",), {}),
        (("kind",), "other"),
    ):
        broken = copy.deepcopy(record)
        spot = broken
        for key in where[:-1]:
            spot = spot[key]
        spot[where[-1]] = value
        save(tensors, tmp_path / "broken.safetensors", record=broken)
        with pytest.raises(InputError):
            load_compiled(tmp_path / "broken.safetensors")
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(InputError):
        load_compiled(path)


def test_torch_compile_and_export_see_one_operator() -> None:
    model, x = sparse(NETWORKS["perceptron"][0]()), torch.randn(3, 20)
    fast = only(model, x)
    program = torch.export.export(fast, (x,), strict=False)
    assert "thresher.engine" in str(program.graph)
    assert differs(program.module()(x), model(x)) < 1e-5
    traced = torch.compile(lambda t: fast(t) + 1, backend="eager", fullgraph=True)
    assert differs(traced(x), model(x) + 1) < 1e-5


def test_several_engines_and_python_threads_at_once_are_right() -> None:
    model, x = sparse(Residual()), torch.randn(6, 3, 16, 17)
    engines = [only(model, x, threads=2), only(model, x[:1], threads=2)]
    right, wrong = model(x), []

    def work(fast: Compiled) -> None:
        wrong.extend(1 for _ in range(20) if not differs(fast(x), right) < 1e-5)

    threads = [threading.Thread(target=work, args=(fast,)) for fast in engines * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_nan_and_infinity_stay_in_their_own_picture() -> None:
    model, x = sparse(Residual()), torch.randn(5, 3, 16, 17)
    fast = only(model, x)
    right = fast(x)
    x[2] = float("nan")
    got = fast(x)
    assert bool(got[2].isnan().any())
    assert torch.equal(got[[0, 1, 3, 4]], right[[0, 1, 3, 4]])
    assert torch.equal(fast(x)[[0, 1]], right[[0, 1]]), "nothing of an earlier call is left"


def test_packed_weights_take_six_bytes_a_nonzero_where_offsets_are_short() -> None:
    model = sparse(nn.Sequential(nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 256)), 0.9)
    nonzeros = sum(int((m.weight != 0).sum()) for m in model if isinstance(m, nn.Linear))
    packed = only(model, torch.randn(32, 256)).report().packed_bytes
    assert (
        6 * nonzeros < packed <= 6 * nonzeros + 4 * 2 * (256 + 2) * 9
    )  # and where rows start, in each block of channels


def test_the_recipe_finds_the_sources_it_names() -> None:
    assert all((build.NATIVE / name).exists() for name in (*build.SHARED, "kernels.cpp"))
    assert not any("native" in flag for _, _, flags in build.X86 for flag in flags)


def test_building_without_a_compiler_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    assert build.compiler() is None
    with pytest.raises(FileNotFoundError, match="compiler"):
        build.build(tmp_path / "library.so")


def test_a_call_with_the_same_shape_again_is_checked_for_type_all_the_same() -> None:
    model, x = sparse(Residual()), torch.randn(2, 3, 16, 17)
    fast = only(model, x)
    for _ in range(3):
        assert differs(fast(x), model(x)) < 1e-5
    assert not fast(x.requires_grad_()).requires_grad
    with pytest.raises(InputError, match="float64"):
        fast(x.double())
