"""`thresher prune --budget latency=...`: the layers' table, kept on disk, and the pruned network's own time."""

import json

import pytest
from command_line import call

SMALL = ["--model", "small-cnn", "--limit", "256", "--batch-size", "64", "--threads", "1"]


@pytest.mark.usefixtures("engine_library")
def test_a_latency_budget_is_met_by_the_table_and_measured(here, monkeypatch):
    monkeypatch.setenv("THRESHER_CACHE", str(here / "cache"))
    monkeypatch.setattr("thresher.deploy.times.layer.LIMIT", 0.02)
    more = ["--method", "magnitude", "--epochs", "0", "--budget", "latency=90%", "--engine", "thresher"]
    got = json.loads(call("prune", *SMALL, *more, "--json").stdout)["report"]["latency"]
    assert got["predicted"] <= got["limit"] == pytest.approx(0.9 * got["dense"])
    assert got["measured"] > 0
    assert (got["engine"], got["threads"]) == ("thresher", 1)
    assert list((here / "cache").glob("layer-times-*.json"))
