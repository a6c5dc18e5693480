"""Claims about networks by name: they build, run, have the published sizes, and learn."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

from thresher.apps.data import Batches, load_data
from thresher.apps.models import build_model, model_names, normalisation_of
from thresher.errors import InputError

SHAPES = {
    "mlp": (1, 8, 8),
    "small-cnn": (1, 8, 8),
    "resnet50": (3, 64, 64),
    "mobilenetv1": (3, 64, 64),
    "mobilenetv2": (3, 64, 64),
    "efficientnet-b0": (3, 64, 64),
    "vit-small": (3, 32, 32),
    "wrn28-10": (3, 8, 8),
    "wrn16-8": (3, 16, 16),
}
LIBRARY = {"resnet50", "mobilenetv1", "mobilenetv2", "efficientnet-b0", "vit-small"}


def build(name, num_classes=10, input_shape=None, **settings):
    shape = input_shape or SHAPES.get(name, (3, 32, 32))
    return build_model(name, num_classes=num_classes, input_shape=shape, **settings)


def count(model):
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("name", [*model_names(), "wrn10-2"])
def test_every_network_runs_forward_and_backward(name):
    if name in LIBRARY:
        pytest.importorskip("transformers")
    torch.manual_seed(0)
    model = build(name)
    logits = model(torch.randn(2, *SHAPES.get(name, (3, 32, 32))))
    assert logits.shape == (2, 10)
    functional.cross_entropy(logits, torch.tensor([1, 2])).backward()
    gradients = [parameter.grad for parameter in model.parameters()]
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients)
    assert normalisation_of(model) is None


@pytest.mark.parametrize(
    ("name", "classes", "shape", "expected"),
    [
        ("resnet20", 10, (3, 32, 32), 269_722),
        ("resnet32", 10, (3, 32, 32), 464_154),
        ("resnet44", 10, (3, 32, 32), 658_586),
        ("resnet56", 10, (3, 32, 32), 853_018),
        ("resnet110", 10, (3, 32, 32), 1_727_962),
        ("wrn16-8", 10, (3, 32, 32), 10_961_370),
        ("wrn28-10", 10, (3, 32, 32), 36_479_194),
        ("mlp", 10, (1, 28, 28), 266_610),
        ("small-cnn", 10, (1, 28, 28), 61_482),
        ("resnet50", 1000, (3, 224, 224), 25_557_032),
        ("mobilenetv1", 1000, (3, 224, 224), 4_231_976),
        ("mobilenetv2", 1000, (3, 224, 224), 3_504_872),
        ("efficientnet-b0", 1000, (3, 224, 224), 5_288_548),
        ("vit-small", 1000, (3, 224, 224), 22_050_664),
    ],
)
def test_parameter_counts_are_the_published_ones(name, classes, shape, expected):
    if name in LIBRARY:
        pytest.importorskip("transformers")
    with torch.device("meta"):
        assert count(build(name, classes, shape)) == expected


def test_the_cifar_resnet_names_its_state_as_its_weights_do():
    names = set(build("resnet20").state_dict())
    assert {"conv1.weight", "bn1.weight", "layer1.0.conv1.weight", "layer3.2.bn2.running_var", "linear.bias"} <= names
    assert not [name for name in names if "shortcut" in name]


def test_the_pad_shortcut_keeps_even_rows_and_centres_the_channels():
    from thresher.apps.models.cifar_resnet import PadShortcut

    x = torch.arange(2 * 4 * 4.0).reshape(1, 2, 4, 4)
    y = PadShortcut(1)(x)
    assert torch.equal(y[:, 1:3], x[:, :, ::2, ::2])
    assert y[:, [0, 3]].abs().sum() == 0


@pytest.mark.parametrize("name", ["resnet20", "small-cnn", "wrn10-1", "mlp"])
def test_grey_images_and_odd_sizes_are_taken(name):
    model = build(name, 3, (1, 27, 29))
    assert model(torch.randn(2, 1, 27, 29)).shape == (2, 3)


def test_library_networks_have_sane_batch_norm_and_dropout():
    pytest.importorskip("transformers")
    for name in ("mobilenetv1", "mobilenetv2", "efficientnet-b0"):
        modules = list(build(name).modules())
        assert {m.momentum for m in modules if isinstance(m, nn.BatchNorm2d)} == {0.1}
        assert all(m.p <= 0.2 for m in modules if isinstance(m, nn.Dropout))


@pytest.mark.parametrize("name", ["resnet20", "small-cnn", "mlp"])
def test_networks_can_be_copied(name):
    model = build(name).eval()
    x = torch.randn(2, *SHAPES.get(name, (3, 32, 32)))
    assert torch.equal(copy.deepcopy(model)(x), model(x))


@pytest.mark.parametrize(
    ("name", "hint"), [("resnet21", "resnet20"), ("mobilenet-v2", "mobilenetv2"), ("smallcnn", "small-cnn")]
)
def test_an_unknown_name_is_answered_with_close_ones_and_all(name, hint):
    with pytest.raises(InputError) as caught:
        build(name)
    assert hint in caught.value.do
    assert all(known in caught.value.expected for known in model_names())


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("wrn15-2", {}, "D = 6n \\+ 4"),
        ("wrn16-0", {}, "K at least 1"),
        ("vgg16", {"input_shape": (1, 28, 28)}, "at least 32x32"),
        ("resnet20", {"num_classes": 0}, "num_classes=0"),
        ("resnet20", {"input_shape": (32, 32)}, r"\(C, H, W\)"),
        ("resnet20", {"input_shape": (3, 0, 32)}, "positive"),
        ("hf:nowhere", {}, "no config.json"),
    ],
)
def test_a_shape_or_size_that_does_not_suit_is_refused(name, settings, message):
    with pytest.raises(InputError, match=message):
        build(name, **settings)


def test_vit_refuses_images_that_its_patches_do_not_cover():
    pytest.importorskip("transformers")
    with pytest.raises(InputError, match="multiples of the patch, 16"):
        build("vit-small", input_shape=(3, 120, 120))


def test_small_cnn_learns_the_digits_in_seconds():
    torch.manual_seed(0)
    data = load_data("digits")
    model = build("small-cnn")
    settings = {"mean": data.mean, "std": data.std}
    batches = Batches(data.train, 64, train=True, augment="shift", **settings)
    steps = 15 * len(batches)
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps)
    for _ in range(15):
        for inputs, labels in batches:
            functional.cross_entropy(model(inputs), labels).backward()
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
    model.eval()
    with torch.no_grad():
        right = sum(int((model(x).argmax(1) == y).sum()) for x, y in Batches(data.test, 360, train=False, **settings))
    assert right / 360 >= 0.98
