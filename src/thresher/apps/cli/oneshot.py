"""`thresher oneshot`: a language model in a folder, a text to calibrate on, and the pruned model in another folder."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from thresher.apps.cli.reading.flags import Json, Quiet
from thresher.apps.cli.showing.counting import counter
from thresher.errors import InputError, require

if TYPE_CHECKING:
    from torch import Tensor, nn

REPORT = "oneshot.json"


def oneshot(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="a causal language model as transformers saves it")],
    text: Annotated[Path, typer.Option(metavar="FILE", help="plain text to calibrate on, like what the model reads")],
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="where the pruned model goes; must not exist")],
    budget: Annotated[str | None, typer.Option(help="e.g. sparsity=50%; not needed with --groups 2:4")] = None,
    method: Annotated[str, typer.Option(help="sparsegpt, wanda or magnitude, e.g. sparsegpt:block=64")] = "sparsegpt",
    groups: Annotated[str, typer.Option(help="weight, or N:M along the inputs, e.g. 2:4")] = "weight",
    rule: Annotated[list[str] | None, typer.Option(help="as for prune, e.g. exclude:PATTERN (may be repeated)")] = None,
    order: Annotated[str, typer.Option(help="block, or layer: new statistics for each layer")] = "block",
    length: Annotated[int, typer.Option(help="tokens in a window of text")] = 512,
    samples: Annotated[int, typer.Option(help="windows to calibrate on, at most")] = 128,
    device: Annotated[str, typer.Option(help="cpu, cuda, ...")] = "cpu",
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Prune a language model without training, and compare perplexities on a part of the text that was kept back.

    Example: thresher oneshot my-llama --text sample.txt --budget sparsity=50% --out my-llama-50
    """
    _check_paths(folder, text, out)
    if length < 2 or samples < 1:
        raise InputError(f"--length {length} --samples {samples}", "at least 2 tokens and 1 window", "correct them")
    library: Any = require("transformers", extra="hf", why="opening a language model")
    import thresher

    model = library.AutoModelForCausalLM.from_pretrained(folder, local_files_only=True).eval().to(device)
    tokenizer = library.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    most = getattr(model.config, "max_position_embeddings", None) or length
    seen, held = windows(tokenizer(text.read_text(encoding="utf-8")).input_ids, min(length, most), samples)
    before = perplexity(model, held)
    with counter(quiet) as progress:
        report = thresher.prune_oneshot(
            model,
            method,
            budget,
            calibration=[{"input_ids": ids} for ids in seen],
            rules=rule or (),
            groups=groups,
            order=order,
            progress=progress,
        )
    after = perplexity(model, held)
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    report.save(out / REPORT)
    tokens = {"calibrated_on": len(seen), "measured_on": len(held), "length": seen[0].shape[1]}
    found = {"dense": before, "pruned": after, **tokens}
    if as_json:
        typer.echo(json.dumps({**report.to_dict(), "perplexity": found, "out": str(out)}))
    elif not quiet:
        typer.echo(str(report))
        typer.echo(
            f"perplexity on {len(held)} windows kept back: dense {before:.2f}, pruned {after:.2f} "
            f"(calibrated on {len(seen)} windows of {seen[0].shape[1]} tokens)"
        )
        typer.echo(f"written: {out}")


def windows(tokens: list[int], length: int, samples: int) -> tuple[list[Tensor], list[Tensor]]:
    """(windows to calibrate on, windows to measure on), each (1, length): the last fifth of the text is kept back, and
    from the rest windows are taken at even distances.

    >>> seen, held = windows(list(range(20)), 2, 3)
    >>> [ids[0].tolist() for ids in seen], [ids[0].tolist() for ids in held]
    ([[0, 1], [4, 5], [10, 11]], [[16, 17], [18, 19]])

    Errors: InputError when the text has fewer than two windows.
    """
    import torch

    whole = len(tokens) // length
    if whole < 2:
        raise InputError(
            f"a text of {len(tokens)} tokens for windows of {length}",
            "at least two windows, one to calibrate on and one to measure on",
            "give more text, or a smaller --length",
        )
    cut = list(torch.tensor(tokens[: whole * length]).reshape(whole, 1, length))
    back = max(whole // 5, 1)
    count = min(samples, whole - back)
    return [cut[place * (whole - back) // count] for place in range(count)], cut[whole - back :]


def perplexity(model: nn.Module, held: list[Tensor]) -> float:
    """exp of the mean loss per predicted token, over windows of equal length."""
    import torch

    place = next(model.parameters()).device
    with torch.no_grad():
        losses = [float(model(input_ids=ids.to(place), labels=ids.to(place)).loss) for ids in held]
    mean = sum(losses) / len(losses)
    return math.exp(mean) if mean < 700 else math.inf


def _check_paths(folder: Path, text: Path, out: Path) -> None:
    if not (folder / "config.json").is_file():
        raise InputError(f"{str(folder)!r}", "a folder with config.json", "give the folder that save_pretrained wrote")
    if not text.is_file():
        raise InputError(f"--text {str(text)!r}", "a text file", "correct the path")
    if out.exists():
        raise InputError(f"--out {str(out)!r}, which is there already", "a new folder", "choose another name")
