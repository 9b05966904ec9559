"""Merged metrics are as good as one, and metrics that keep other scores refuse to be merged."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from helpers import BATCHES, FPR_BOUNDS, MakeMetric, assert_same, by_function, each_variant, join, make_aupimo, updated

from aupimo_torchmetrics import AUPIMO, PIMO


@each_variant
@pytest.mark.parametrize("form", ["metric", "dict"])
@pytest.mark.parametrize("own", ["nothing", "updated", "computed"])
def test_merged_metrics_are_as_good_as_one(make_metric: MakeMetric, form: str, own: str) -> None:
    """A merged metric has the images of the other and then its own: its value is new, and there is no false warning."""
    source, metric = updated(make_metric(), BATCHES[:2]), make_metric()
    own_batches = [] if own == "nothing" else BATCHES[2:]
    updated(metric, own_batches)
    if own == "computed":
        metric.compute()
    metric.merge_state(source if form == "metric" else source.metric_state)
    joint = by_function(metric, *join([*BATCHES[:2], *own_batches]))
    assert_same(metric.compute(), joint)
    source.reset()
    metric._computed = None
    assert_same(metric.compute(), joint)


@pytest.mark.parametrize(
    "other",
    [
        make_aupimo(normal_buffer=None),
        make_aupimo(normal_buffer=2**16 + 1),
        AUPIMO(fpr_bounds=(FPR_BOUNDS[0], FPR_BOUNDS[1] * (1 + 1e-12))),
        PIMO(),
    ],
    ids=["keeps all", "other buffer", "other upper bound", "other class"],
)
@pytest.mark.parametrize("form", ["metric", "dict"])
def test_merge_refuses_other_settings(other: Any, form: str) -> None:
    """States that were kept by other settings are refused before any is merged."""
    metric = updated(make_aupimo())
    before = copy.deepcopy(metric.metric_state)
    updated(other)
    with pytest.raises(ValueError, match="Expected"):
        metric.merge_state(other if form == "metric" else other.metric_state)
    assert_same(metric.metric_state, before)


def test_merge_refuses_an_incomplete_state() -> None:
    """A dict that lacks a state is refused before any of it is merged."""
    metric = updated(make_aupimo())
    before = copy.deepcopy(metric.metric_state)
    state = updated(make_aupimo()).metric_state
    del state["aupimo_config"]
    with pytest.raises(ValueError, match="aupimo_config"):
        metric.merge_state(state)
    assert_same(metric.metric_state, before)


def test_merge_of_metrics_without_data() -> None:
    """Metrics of ranks or folds that saw nothing merge as well."""
    metric = make_aupimo()
    metric.merge_state(make_aupimo())
    with pytest.warns(UserWarning, match="there is no image"):
        assert metric.compute().isnan()
    updated(metric).merge_state(make_aupimo())
    assert_same(metric.compute(), by_function(metric, *join(BATCHES)))


def test_merge_allows_settings_of_compute() -> None:
    """Metrics that differ only in what `compute` reads keep the same scores and merge."""
    metric = updated(make_aupimo(), BATCHES[2:])
    other = AUPIMO(300, (1e-4, FPR_BOUNDS[1]), reduction="none", shared_fpr="max")
    metric.merge_state(updated(other, BATCHES[:2]))
    assert_same(metric.compute(), by_function(metric, *join(BATCHES)))
