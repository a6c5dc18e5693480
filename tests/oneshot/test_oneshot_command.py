"""`thresher oneshot` on a tiny model with a tiny tokenizer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from thresher.apps.cli import main
from thresher.apps.cli.oneshot import windows
from thresher.errors import InputError

transformers = pytest.importorskip("transformers")
WORDS = ["the", "cat", "sat", "on", "a", "mat", "and", "saw", "one", "more", "dog", "there"]


@pytest.fixture
def here(tmp_path: Path) -> Path:
    from tokenizers import Tokenizer, models, pre_tokenizers

    torch.manual_seed(0)
    raw = Tokenizer(models.WordLevel({word: place for place, word in enumerate(WORDS)}, unk_token="the"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    transformers.PreTrainedTokenizerFast(tokenizer_object=raw, unk_token="the").save_pretrained(tmp_path / "net")
    config = transformers.LlamaConfig(
        vocab_size=12, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2
    )
    transformers.LlamaForCausalLM(config).save_pretrained(tmp_path / "net")
    (tmp_path / "sample.txt").write_text(" ".join(WORDS * 40))
    return tmp_path


def call(*words: object) -> Any:
    return CliRunner().invoke(main, ["oneshot", *map(str, words)])


def test_the_folder_that_comes_out_opens_and_has_the_zeros(here: Path) -> None:
    given = ("--text", here / "sample.txt", "--budget", "sparsity=50%", "--out", here / "half", "--length", 16)
    shown = call(here / "net", *given, "--json")
    assert shown.exit_code == 0, shown.output
    said = json.loads(shown.stdout)
    assert said["perplexity"]["measured_on"] == 6
    assert said["perplexity"]["pruned"] > 1
    model = transformers.AutoModelForCausalLM.from_pretrained(here / "half")
    assert int((model.model.layers[1].mlp.up_proj.weight == 0).sum()) == 192
    assert transformers.AutoTokenizer.from_pretrained(here / "half")("cat").input_ids == [1]
    assert json.loads((here / "half" / "oneshot.json").read_text())["budget"]["sparsity"] == 0.5
    again = call(here / "net", *given)
    assert again.exit_code == 2
    assert "there already" in again.output


def test_text_output_names_both_perplexities(here: Path) -> None:
    shown = call(here / "net", "--text", here / "sample.txt", "--groups", "2:4", "--method", "wanda", "--length", 16,
                 "--out", here / "half")  # fmt: skip
    assert shown.exit_code == 0, shown.output
    assert "windows kept back: dense" in shown.output
    assert "asked 2:4" in shown.output


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"folder": "nowhere"}, "config.json"),
        ({"--text": "nowhere.txt"}, "a text file"),
        ({"--length": "1"}, "at least 2 tokens"),
        ({"--length": "300"}, "at least two windows"),
        ({"--method": "lats"}, "thresher.prune"),
    ],
)
def test_what_cannot_be_is_refused(here: Path, change: dict[str, str], says: str) -> None:
    given = {"folder": "net", "--text": "sample.txt", "--length": "16", "--method": "wanda", **change}
    flags = [word for name in ("--length", "--method") for word in (name, given[name])]
    shown = call(here / given["folder"], "--text", here / given["--text"], *flags, "--out", here / "x", "--budget",
                 "sparsity=50%")  # fmt: skip
    assert shown.exit_code == 2
    assert says in shown.output
    assert not (here / "x").exists()


def test_windows_do_not_overlap_and_keep_a_fifth_back() -> None:
    seen, held = windows(list(range(103)), 10, 4)
    assert [int(ids[0, 0]) for ids in seen] == [0, 20, 40, 60]
    assert [int(ids[0, 0]) for ids in held] == [80, 90]
    with pytest.raises(InputError, match="at least two"):
        windows(list(range(19)), 10, 4)
