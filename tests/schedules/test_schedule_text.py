"""Claims about naming, copying and drawing schedules."""

import dataclasses
import pickle

import pytest
import torch

from thresher.errors import InputError
from thresher.schedules import REGISTRY, Constant, Coupled, LatsCurve, Pgh, SLats, parse_schedule, plot


@pytest.mark.parametrize(
    ("text", "schedule"),
    [
        ("slats", SLats()),
        ("pgh", Pgh(beta=0.01)),
        ("pgh:beta=0.05", Pgh(beta=0.05)),
        (" PGH : beta = 0.05 ", Pgh(beta=0.05)),
        ("coupled", Coupled()),
        ("coupled:beta=0.1,floor=0.01", Coupled(beta=0.1, floor=0.01)),
        ("lats:epochs=30", LatsCurve(epochs=30)),
        ("constant:start=0.5", Constant(start=0.5)),
    ],
)
def test_text_names_a_schedule(text, schedule):
    assert parse_schedule(text) == schedule


@pytest.mark.parametrize(
    "text", ["", "cosine", "pgh:gamma=1", "pgh:beta=x", "pgh:beta", "pgh:beta=-1", "pgh:beta=nan", "lats:epochs=1.5"]
)
def test_bad_text_is_refused(text):
    with pytest.raises(InputError):
        parse_schedule(text)


@pytest.mark.parametrize("name", sorted(REGISTRY))
def test_every_schedule_has_a_default_and_reads_back(name):
    schedule = REGISTRY[name]()
    assert parse_schedule(name) == parse_schedule(schedule.spelling) == schedule
    assert schedule.name == name
    assert pickle.loads(pickle.dumps(schedule)) == schedule
    assert eval(repr(schedule), {type(schedule).__name__: type(schedule)}) == schedule
    with pytest.raises(dataclasses.FrozenInstanceError):
        schedule.other = 1
    with pytest.raises(TypeError):
        type(schedule)(0.5)


class Axes:
    """Stands in for matplotlib axes."""

    def __init__(self):
        self.lines, self.labels = [], []

    def plot(self, across, up, label):
        self.lines.append((across, up))
        self.labels.append(label)

    def set_xlabel(self, text): ...

    def set_ylabel(self, text): ...

    def legend(self): ...


def test_plot_draws_one_line_for_each_schedule():
    axes = Axes()
    assert plot([SLats(), Pgh(beta=0.1)], axes) is axes
    assert axes.labels == ["slats", "pgh:beta=0.1"]
    across, up = axes.lines[0]
    torch.testing.assert_close(torch.tensor(up), torch.tensor([SLats()(x) for x in across]))


def test_a_schedule_plots_itself():
    axes = Axes()
    assert Coupled().plot(axes) is axes
    assert axes.labels == ["coupled:beta=1.0,floor=0.0"]


def test_plot_opens_axes_with_matplotlib_when_none_are_given():
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    ax = SLats().plot()
    assert len(ax.lines) == 1
