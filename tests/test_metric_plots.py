"""`plot` of the metrics draws the own value, or those that are given."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from helpers import make_aupimo, updated

from aupimo_torchmetrics import PIMO


@pytest.fixture
def axis() -> Iterator[Any]:
    """A matplotlib axis without a screen; closes all figures afterwards."""
    pyplot = pytest.importorskip("matplotlib.pyplot")
    pyplot.switch_backend("Agg")
    yield pyplot.subplots()[1]
    pyplot.close("all")


@pytest.mark.parametrize("value", ["computed", "scalar", "list of scalars", "NaN"])
def test_plot_draws_any_value(value: str, axis: Any) -> None:
    """`plot` shows the own value, a given one, and one for each step."""
    scores = torch.tensor([0.2, torch.nan, 0.7])
    values = {"computed": None, "scalar": scores[0], "list of scalars": [scores[0], scores[2]], "NaN": scores[1]}
    metric = updated(make_aupimo())
    figure, new_axis = metric.plot(values[value])
    assert new_axis.get_figure() is figure
    assert new_axis.get_ylim() == pytest.approx((-0.1, 1.1), abs=0.2)  # margins are a matter of taste
    assert metric.plot(values[value], ax=axis) == (axis.get_figure(), axis)
    assert axis.lines


@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_plot_of_nothing(reduction: Any, axis: Any) -> None:
    """A plot of an empty list is an error, and not a plot of the own value."""
    with pytest.raises(ValueError, match="Expected `val` to hold at least one value"):
        make_aupimo(reduction=reduction).plot([], axis)


def test_plot_of_each_image_is_the_distribution(axis: Any) -> None:
    """With `reduction="none"` the points are the own scores, given ones, or those of each step in turn."""
    metric = updated(make_aupimo(reduction="none"))
    first, second = torch.tensor([0.2, torch.nan, 0.7]), torch.tensor(0.5)  # of a single image the score is 0-d
    for value, expected in ((None, [metric.compute()]), (first, [first]), ([first, second], [first, second])):
        axis.clear()
        assert metric.plot(value, axis) == (axis.get_figure(), axis)
        drawn = [points.get_offsets()[:, 0] for points in axis.collections]
        for scores, points in zip(expected, drawn, strict=True):
            assert sorted(points) == pytest.approx(sorted(scores[~scores.isnan()].reshape(-1).tolist()))
    assert [label.get_text().splitlines()[0] for label in axis.get_yticklabels()] == ["step 0", "step 1"]


def test_plot_of_curves(axis: Any) -> None:
    """`PIMO.plot` draws the own curves or given ones, and with scores the range that these average over."""
    metric = updated(PIMO())
    figure, own = metric.plot()
    assert own.get_figure() is figure
    result = updated(make_aupimo()).result()
    assert metric.plot(metric.compute(), axis, result) == (axis.get_figure(), axis)
    assert len(axis.patches) == 1
    assert axis.get_legend().get_texts()[0].get_text() == "AUPIMO averages here: FPR 0.001 to 0.01"
