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


OTHERS = {
    "keeps all": make_aupimo(normal_buffer=None),
    "other buffer": make_aupimo(normal_buffer=2**16 + 1),
    "other upper bound": AUPIMO(fpr_bounds=(FPR_BOUNDS[0], FPR_BOUNDS[1] * (1 + 1e-12))),
    "other class": PIMO(),
}


@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS.keys())
def test_merge_refuses_what_was_kept_otherwise(other: Any) -> None:
    """States that were kept by other settings, or of which one is missing, are refused before any is merged."""
    metric = updated(make_aupimo())
    before = copy.deepcopy(metric.metric_state)
    incomplete = {name: state for name, state in before.items() if name != "aupimo_config"}
    updated(other)
    for states, message in ((other, "Expected"), (other.metric_state, "Expected"), (incomplete, "aupimo_config")):
        with pytest.raises(ValueError, match=message):
            metric.merge_state(states)
        assert_same(metric.metric_state, before)


def test_merge_takes_metrics_without_data_and_with_other_settings_of_compute() -> None:
    """Metrics that saw nothing merge as well, and so do those that differ only in what `compute` reads."""
    metric = make_aupimo()
    metric.merge_state(make_aupimo())
    with pytest.warns(UserWarning, match="there is no image"):
        assert metric.compute().isnan()
    updated(metric, BATCHES[2:]).merge_state(make_aupimo())
    other = AUPIMO(300, (1e-4, FPR_BOUNDS[1]), reduction="none", shared_fpr="max")
    metric.merge_state(updated(other, BATCHES[:2]))
    assert_same(metric.compute(), by_function(metric, *join(BATCHES)))
