"""What a method with learned thresholds writes into the metrics of a run."""

from pathlib import Path

from thresher.apps.runs import Run
from thresher.apps.train import TrainConfig, fit


def epochs(tmp_path: Path, method: str) -> list[dict[str, float]]:
    run = Run.create(tmp_path / "run")
    config = TrainConfig(
        model="mlp", data="digits", limit=400, epochs=4, batch_size=50, method=method, budget="sparsity=80%", seed=0
    )
    fit(config, run)
    return [record for record in run.metrics() if record["kind"] == "epoch"]


def test_ltp_logs_its_band_and_a_soft_gap_that_ends_at_zero(tmp_path: Path) -> None:
    found = epochs(tmp_path, "ltp:temperature=0.3")
    assert 0 < found[0]["band_fraction"] < 1
    assert all("soft_gap" in record for record in found)
    assert abs(found[-1]["soft_gap"]) == 0


def test_asl_logs_how_far_it_has_to_go_and_no_gap(tmp_path: Path) -> None:
    found = epochs(tmp_path, "asl")
    assert {"shift", "gamma", "model_sparsity"} <= set(found[0])
    assert not any("soft_gap" in record for record in found)


def test_other_methods_log_nothing_more(tmp_path: Path) -> None:
    assert set(epochs(tmp_path, "gmp")[0]) == {
        "kind",
        "epoch",
        "loss",
        "accuracy",
        "lr",
        "step",
        "sparsity",
        "threshold",
        "seconds",
    }
