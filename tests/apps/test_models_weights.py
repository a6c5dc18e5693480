"""Claims about weight files: what loads, what is refused, and that the real ResNet-20 scores what was published."""

import json

import pytest
import torch
from safetensors.torch import save_file

from thresher.apps.data import Batches, data_roots
from thresher.apps.data.listing import decode
from thresher.apps.data.parquet import parquet_listing
from thresher.apps.models import build_model, load_weights, normalisation_of
from thresher.errors import InputError

FILE = "weights/resnet20_cifar10.safetensors"
ROOT = next((place for place in data_roots() if (place / FILE).is_file()), None)
REAL = pytest.mark.skipif(ROOT is None, reason="no data folder beside the checkout, and THRESHER_DATA is not set")
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def build(name="small-cnn", num_classes=10, input_shape=(1, 8, 8), **settings):
    return build_model(name, num_classes=num_classes, input_shape=input_shape, **settings)


def failure(**settings):
    with pytest.raises(InputError) as caught:
        build(**settings)
    return caught.value


@pytest.fixture
def state():
    return build().state_dict()


def test_weights_round_trip(tmp_path, state):
    save_file(state, tmp_path / "a.safetensors")
    again = build(weights=tmp_path / "a.safetensors")
    assert all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in state.items())
    assert normalisation_of(again) is None


def test_num_batches_tracked_may_be_absent(tmp_path, state):
    save_file({k: v for k, v in state.items() if "num_batches" not in k}, tmp_path / "a.safetensors")
    build(weights=str(tmp_path / "a.safetensors"))


def test_another_class_count_is_said_so_with_both_shapes(tmp_path, state):
    save_file(state, tmp_path / "a.safetensors")
    error = failure(num_classes=7, weights=tmp_path / "a.safetensors")
    assert "linear.weight (10, 64) instead of (7, 64)" in error.given
    assert "number of classes" in error.do


def test_all_problems_come_in_one_error(tmp_path, state):
    state["extra"] = torch.zeros(1)
    del state["stem.conv.weight"], state["linear.bias"]
    state["last.bn.weight"] = torch.zeros(3)
    save_file(state, tmp_path / "a.safetensors")
    error = failure(weights=tmp_path / "a.safetensors")
    assert "2 tensors missing (stem.conv.weight, linear.bias)" in error.given
    assert "1 unexpected (extra)" in error.given
    assert "last.bn.weight (3,) instead of (64,)" in error.given


def test_a_long_list_is_cut_after_the_first_few(tmp_path):
    save_file({"x": torch.zeros(1)}, tmp_path / "a.safetensors")
    assert "stem.bn.weight, stem.bn.bias, ...)" in failure(weights=tmp_path / "a.safetensors").given


def test_a_refused_file_leaves_the_model_as_it_was(tmp_path, state):
    model = build()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    del state["linear.bias"]
    save_file(state, tmp_path / "a.safetensors")
    with pytest.raises(InputError):
        load_weights(model, tmp_path / "a.safetensors")
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("content", [b"", b"garbage that is no header"])
def test_a_file_that_is_no_safetensors_file_is_refused(tmp_path, content):
    (tmp_path / "a.safetensors").write_bytes(content)
    assert "cannot be read" in failure(weights=tmp_path / "a.safetensors").given


def test_a_pickle_is_refused_unread(tmp_path, state):
    torch.save(state, tmp_path / "a.pt")
    assert "no pickle" in failure(weights=tmp_path / "a.pt").expected


def test_a_missing_file_is_named_with_the_names_that_exist():
    error = failure(name="resnet20", input_shape=(3, 32, 32), weights="imagenet")
    assert "'imagenet'" in error.given
    assert "cifar10" in error.expected
    assert "no named weights" in failure(weights="cifar10").expected


def test_named_weights_that_are_absent_say_where_they_were_looked_for(tmp_path, monkeypatch):
    monkeypatch.setattr("thresher.apps.models.weights.find", lambda relative: None)
    monkeypatch.setenv("THRESHER_DATA", str(tmp_path))
    error = failure(name="resnet20", input_shape=(3, 32, 32), weights="cifar10")
    assert str(tmp_path / FILE) in error.given
    assert "THRESHER_DATA" in error.do


@REAL
@pytest.mark.shared_data
def test_resnet20_scores_what_was_published_on_the_whole_test_set(monkeypatch):
    monkeypatch.setenv("THRESHER_DATA", str(ROOT))
    model = build("resnet20", input_shape=(3, 32, 32), weights="cifar10").eval()
    assert normalisation_of(model) == IMAGENET
    mean, std = IMAGENET
    data = decode(parquet_listing([ROOT / "cifar10" / "test.parquet"]))
    with torch.inference_mode():
        right = sum(
            int((model(x).argmax(1) == y).sum()) for x, y in Batches(data, 250, train=False, mean=mean, std=std)
        )
    assert right == 9173


@REAL
@pytest.mark.shared_data
def test_the_same_file_by_its_path_gets_the_same_normalisation():
    assert normalisation_of(build("resnet20", input_shape=(3, 32, 32), weights=ROOT / FILE)) == IMAGENET


@pytest.fixture
def folder(tmp_path):
    library = pytest.importorskip("transformers")
    config = library.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", num_labels=4, num_channels=3
    )
    library.AutoModelForImageClassification.from_config(config).save_pretrained(tmp_path / "net")
    stored = {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.1, 0.2, 0.3]}
    (tmp_path / "net" / "preprocessor_config.json").write_text(json.dumps(stored))
    return tmp_path / "net"


def test_a_pretrained_folder_gives_logits_and_its_normalisation(folder):
    model = build(f"hf:{folder}", 4, (3, 32, 32)).eval()
    assert model(torch.randn(2, 3, 32, 32)).shape == (2, 4)
    assert normalisation_of(model) == ((0.5, 0.4, 0.3), (0.1, 0.2, 0.3))


def test_a_pretrained_folder_for_other_classes_or_channels_is_refused(folder):
    assert "4 classes" in failure(name=f"hf:{folder}", num_classes=5, input_shape=(3, 32, 32)).given
    assert "3 channels" in failure(name=f"hf:{folder}", num_classes=4, input_shape=(1, 32, 32)).given


def test_a_pretrained_folder_that_is_damaged_is_refused(folder):
    (folder / "model.safetensors").write_bytes(b"broken")
    assert "cannot be loaded" in failure(name=f"hf:{folder}", num_classes=4, input_shape=(3, 32, 32)).given


def test_a_pretrained_folder_that_lacks_tensors_is_refused_instead_of_filled_at_random(folder):
    from safetensors.torch import load_file

    tensors = load_file(folder / "model.safetensors")
    del tensors["classifier.1.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    error = failure(name=f"hf:{folder}", num_classes=4, input_shape=(3, 32, 32))
    assert "lack 1 tensors, e.g. classifier.1.weight" in error.given
