"""All metrics behave as native metrics of torchmetrics do: settings, copies, states, reset, forward, merge, plot."""

from __future__ import annotations

import copy
import inspect
import pickle
from typing import Any

import pytest
import torch
from helpers import (
    BATCHES,
    COPIES,
    FPR_BOUNDS,
    FUNCTIONS,
    MakeMetric,
    assert_same,
    by_function,
    each_metric,
    ignoring_uncertainty,
    join,
    make_aupimo,
    make_batch,
    updated,
)

from aupimo_torchmetrics import AUPIMO, AUPRO, PIMO, ImageAUROC, PixelAUROC

pytestmark = ignoring_uncertainty
EXTRA = make_batch("NNA", 9)
each_class = pytest.mark.parametrize("metric_class", [AUPIMO, PIMO, *FUNCTIONS])
CONSTANTS = {
    "is_differentiable": False,
    "higher_is_better": True,
    "full_state_update": False,
    "plot_lower_bound": 0.0,
    "plot_upper_bound": 1.0,
}


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")  # torchmetrics still tests it
@pytest.mark.filterwarnings("ignore:This property will be removed in 2.0.0:DeprecationWarning")  # one of torchmetrics
@each_class
def test_it_is_a_metric_of_torchmetrics(metric_class: type[Any]) -> None:
    """Settings of the base class reach it, its constants are right, it can be scripted, and is a key of its own."""
    metric = metric_class(dist_sync_on_step=True, compute_with_cache=False)
    assert (metric.dist_sync_on_step, metric.compute_with_cache) == (True, False)
    for name, value in CONSTANTS.items():
        assert getattr(metric, name) == value or metric_class is PIMO  # which is no number
    assert AUPIMO.plot_legend_name == "Image"
    torch.jit.script(metric)
    first, second = metric_class(), metric_class()
    assert hash(first) != hash(second)
    assert hash(updated(first)) != hash(updated(second))
    # collections and anomalib find these first, by name and by position
    assert [*inspect.signature(metric_class.update).parameters][1:3] == ["preds", "target"]


@each_metric
def test_copies_go_their_own_way(make_metric: MakeMetric) -> None:
    """A copy has the data of its original, and what happens to one does not happen to the other."""
    for copy_of in COPIES.values():
        for batches, is_computed in (([], False), (BATCHES, False), (BATCHES, True)):
            metric = updated(make_metric(), batches)
            if is_computed:
                metric.compute()
            other = copy_of(metric)
            assert type(other) is type(metric)
            if batches:
                assert_same(other.compute(), metric.compute())
            if batches and isinstance(metric, AUPIMO):
                assert_same(other.result().aupimos, metric.result().aupimos)
            updated(other, [EXTRA])
            expected = by_function(metric, *join([*batches, EXTRA]))
            assert_same(other.compute(), expected)
            assert metric.update_count == len(batches)
            metric.reset()
            assert_same(other.compute(), expected)


@each_metric
def test_saved_states_can_be_loaded(make_metric: MakeMetric) -> None:
    """States are saved if asked for; loaded ones replace states and a cached value, and two that load share nothing."""
    source = updated(make_metric())
    expected = [by_function(source, *join(each)) for each in (BATCHES, [*BATCHES, EXTRA])]
    assert source.state_dict() == {}
    source.persistent(mode=True)
    saved, loaded = source.state_dict(), make_metric()
    before = copy.deepcopy(saved)
    loaded.load_state_dict(saved)
    for own, is_computed in (([], False), (BATCHES[:1], False), (BATCHES[:1], True)):
        metric = updated(make_metric(), own)
        if is_computed:
            metric.compute()
        metric.load_state_dict(pickle.loads(pickle.dumps(saved)))  # noqa: S301
        assert_same(metric.compute(), expected[0])
        assert_same(updated(metric, [EXTRA]).compute(), expected[1])
        updated(loaded, [EXTRA])
        assert_same(loaded.compute(), expected[1])
        loaded.reset()
        loaded.load_state_dict(saved)
        assert_same(source.compute(), expected[0])
        source._computed = None
    assert_same(saved, before)


def as_of_an_earlier_version(saved: dict[str, Any]) -> dict[str, Any]:
    """States as they were when normal and mask scores were one state."""
    saved["aupimo_scores"] = [*saved.pop("aupimo_normal_scores"), *saved.pop("aupimo_mask_scores")]
    return saved


@pytest.mark.parametrize(
    ("settings", "change", "message"),
    [
        ({"normal_buffer": 10}, dict, "`state_dict` to come from a metric with the same `normal_buffer`"),
        ({}, as_of_an_earlier_version, "lacks aupimo_normal_scores, aupimo_mask_scores.*an earlier version"),
    ],
    ids=["other settings", "earlier version"],
)
def test_other_states_are_not_loaded(settings: dict[str, Any], change: Any, message: str) -> None:
    """States that were kept by other settings or by an earlier version are refused, and what the metric holds stays."""
    source, metric = updated(make_aupimo(**settings)), updated(make_aupimo(), BATCHES[:1])
    source.persistent(True)
    expected = metric.compute()
    with pytest.raises(ValueError, match=message):
        metric.load_state_dict(change(source.state_dict()))
    metric.update(*make_batch("", seed=1))
    assert_same(metric.compute(), expected)


@each_metric
def test_reset_forgets_everything(make_metric: MakeMetric) -> None:
    """After a reset a metric is as new: no data, no value, and the next epoch is right."""
    metric = updated(make_metric())
    metric.compute()
    held, before = metric.metric_state, copy.deepcopy(metric.metric_state)
    metric.reset()
    assert_same(held, before)  # by whoever asked for it
    assert_same(metric.metric_state, make_metric().metric_state)
    assert metric.update_count == 0
    assert getattr(metric, "_result", None) is None  # it holds memory
    with pytest.warns(UserWarning, match="undefined.*there is no"), pytest.warns(match="before the ``update`` method"):
        value = metric.compute()
    assert all(part.isnan().all() for part in (value if isinstance(value, tuple) else [value]))
    assert_same(updated(metric, BATCHES[1:]).compute(), by_function(metric, *join(BATCHES[1:])))


@each_metric
def test_forward_scores_the_batch_and_adds_it(make_metric: MakeMetric) -> None:
    """Each `forward` returns the value of its batch, and the end value is that of all batches."""
    metric = make_metric()
    for preds, target in BATCHES:
        assert_same(metric(preds, target), by_function(metric, preds, target))
    assert metric.update_count == len(BATCHES)
    assert_same(metric.compute(), by_function(metric, *join(BATCHES)))
    updated(metric, [EXTRA])
    assert_same(metric.compute(), by_function(metric, *join([*BATCHES, EXTRA])))


@each_metric
def test_merged_metrics_are_as_good_as_one(make_metric: MakeMetric) -> None:
    """A merged metric has the images of the other and then its own: its value is new, and there is no false warning."""
    for own, is_computed in (([], False), (BATCHES[2:], False), (BATCHES[2:], True)):
        for states_of in (lambda source: source, lambda source: source.metric_state):
            source, metric = updated(make_metric(), BATCHES[:2]), updated(make_metric(), own)
            if is_computed:
                metric.compute()
            metric.merge_state(states_of(source))
            joint = by_function(metric, *join([*BATCHES[:2], *own]))
            assert_same(metric.compute(), joint)
            source.reset()
            metric._computed = None
            assert_same(metric.compute(), joint)


OTHERS: list[tuple[Any, Any, str]] = [
    (make_aupimo(), make_aupimo(normal_buffer=None), "the same `normal_buffer`, upper FPR bound and `ignore_index`"),
    (make_aupimo(), make_aupimo(normal_buffer=2**16 + 1), "the same `normal_buffer`, upper FPR bound"),
    (make_aupimo(), AUPIMO(fpr_bounds=(FPR_BOUNDS[0], FPR_BOUNDS[1] * (1 + 1e-12))), "upper FPR bound"),
    (make_aupimo(), PIMO(), "Expected"),
    (make_aupimo(ignore_index=255), make_aupimo(), "upper FPR bound and `ignore_index`"),
    (make_aupimo(ignore_index=255), make_aupimo(ignore_index=255 + 2**32), "upper FPR bound and `ignore_index`"),
    (AUPRO(), AUPRO(ignore_index=9), "the same `num_bins` and `ignore_index`"),
    (AUPRO(), AUPRO(num_bins=256), "lacks aupimo_pixel_normal_scores"),
    (AUPRO(num_bins=16), AUPRO(num_bins=256), "the same `num_bins` and `ignore_index`"),
    (PixelAUROC(num_bins=16), PixelAUROC(), "lacks aupimo_pixel_normal_counts"),
    (ImageAUROC(), ImageAUROC("mean"), "the same `image_score` and `ignore_index`"),
]


@pytest.mark.parametrize(("metric", "other", "message"), OTHERS)
def test_merge_refuses_what_was_kept_otherwise(metric: Any, other: Any, message: str) -> None:
    """States that were kept by other settings, or of which one is missing, are refused before any is merged."""
    updated(metric), updated(other)
    before = copy.deepcopy(metric.metric_state)
    incomplete = {name: state for name, state in before.items() if name != "aupimo_config"}
    for states, expected in ((other, "Expected"), (other.metric_state, message), (incomplete, "aupimo_config")):
        with pytest.raises(ValueError, match=expected):
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
