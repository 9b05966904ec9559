"""`plot` of the metrics draws the own value, or those that are given."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from helpers import FUNCTIONS, make_aupimo, updated

from aupimo_torchmetrics import PIMO


@pytest.fixture
def axis() -> Iterator[Any]:
    """A matplotlib axis without a screen; closes all figures afterwards."""
    pyplot = pytest.importorskip("matplotlib.pyplot")
    pyplot.switch_backend("Agg")
    yield pyplot.subplots()[1]
    pyplot.close("all")


ONE, OTHER, NAN = torch.tensor([0.2, 0.7, torch.nan])


@pytest.mark.parametrize("value", [None, ONE, [ONE, OTHER], NAN], ids=["own", "one", "several", "NaN"])
@pytest.mark.parametrize("make_metric", [make_aupimo, *FUNCTIONS])
def test_plot_draws_any_value(make_metric: Any, value: Any, axis: Any) -> None:
    """`plot` shows the own value, a given one, and one for each step; of an empty list it is an error."""
    metric = updated(make_metric())
    figure, new_axis = metric.plot(value)
    assert new_axis.get_figure() is figure
    assert new_axis.get_ylim() == pytest.approx((-0.1, 1.1), abs=0.2)  # margins are a matter of taste
    # the others return no figure that they have not made, as torchmetrics does
    assert metric.plot(value, ax=axis) == (axis.get_figure() if make_metric is make_aupimo else None, axis)
    assert axis.lines
    with pytest.raises(ValueError, match="Expected `val` to hold at least one value"):
        metric.plot([], axis)


def test_plot_of_each_image_is_the_distribution(axis: Any) -> None:
    """With `reduction="none"` the points are the own scores, given ones, or those of each step in turn."""
    metric = updated(make_aupimo(reduction="none"))
    with pytest.raises(ValueError, match="Expected `val` to hold at least one value"):
        metric.plot([], axis)
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
