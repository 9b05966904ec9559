"""`AUPIMO` and `PIMO` behave as native metrics of torchmetrics do: settings, copies, states, reset, forward, merge."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from typing import Any

import pytest
import torch
from helpers import (
    BATCHES,
    COPIES,
    FPR_BOUNDS,
    MakeMetric,
    assert_same,
    by_function,
    each_variant,
    join,
    make_aupimo,
    make_batch,
    updated,
)

from aupimo_torchmetrics import AUPIMO, PIMO

BASE_SETTINGS: dict[str, Any] = {
    "compute_on_cpu": True,
    "dist_sync_on_step": True,
    "sync_on_compute": False,
    "compute_with_cache": False,
    "process_group": None,
    "dist_sync_fn": None,
    "distributed_available_fn": lambda: False,
}
CONSTANTS = {
    "is_differentiable": False,
    "higher_is_better": True,
    "full_state_update": False,
    "plot_lower_bound": 0.0,
    "plot_upper_bound": 1.0,
    "plot_legend_name": "Image",
}


@pytest.mark.parametrize("metric_class", [AUPIMO, PIMO])
def test_settings_and_constants_of_the_base_class(metric_class: type[Any]) -> None:
    """Every setting of the base class reaches it; its constants cannot be set on an instance."""
    for name, value in BASE_SETTINGS.items():
        assert getattr(metric_class(**{name: value}), name) is value
    metric = AUPIMO()
    for name, value in CONSTANTS.items():
        assert getattr(metric, name) == value
        with pytest.raises(RuntimeError, match=f"Can't change const `{name}`"):
            setattr(metric, name, None)


@pytest.mark.parametrize("metric_class", [AUPIMO, PIMO])
def test_update_has_the_usual_parameters(metric_class: type[Any]) -> None:
    """Collections and anomalib find `preds` and `target` first, by name and by position."""
    assert list(inspect.signature(metric_class.update).parameters) == ["self", "preds", "target", "image_ids"]


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")  # torchmetrics still tests it
@pytest.mark.filterwarnings("ignore:This property will be removed in 2.0.0:DeprecationWarning")  # one of torchmetrics
@pytest.mark.parametrize("metric_class", [AUPIMO, PIMO])
def test_metric_is_scriptable(metric_class: type[Any]) -> None:
    """A model that holds the metric can be scripted."""
    torch.jit.script(metric_class())


@pytest.mark.parametrize("metric_class", [AUPIMO, PIMO])
def test_hash_differs_between_metrics(metric_class: type[Any]) -> None:
    """Two metrics are two keys of a dictionary, with and without data."""
    first, second = metric_class(), metric_class()
    assert hash(first)
    assert hash(first) != hash(second)
    assert hash(updated(first)) != hash(updated(second))


@each_variant
@pytest.mark.parametrize("copy_of", COPIES.values(), ids=COPIES.keys())
@pytest.mark.parametrize("when", ["empty", "updated", "computed"])
def test_copies_go_their_own_way(make_metric: MakeMetric, copy_of: Callable[[Any], Any], when: str) -> None:
    """A copy has the data of its original, and what happens to one does not happen to the other."""
    metric = make_metric() if when == "empty" else updated(make_metric())
    if when == "computed":
        metric.compute()
    other = copy_of(metric)
    assert type(other) is type(metric)
    num_before = 0 if when == "empty" else len(BATCHES)
    if when != "empty":
        assert_same(other.compute(), metric.compute())
    extra = make_batch("NNA", 9)
    updated(other, [extra])
    assert_same(other.compute(), by_function(metric, *join([*BATCHES[:num_before], extra])))
    assert metric.update_count == num_before
    metric.reset()
    assert_same(other.compute(), by_function(metric, *join([*BATCHES[:num_before], extra])))


@each_variant
@pytest.mark.parametrize("target", ["new", "updated", "computed"])
def test_saved_states_can_be_loaded(make_metric: MakeMetric, target: str) -> None:
    """States are saved if asked for; loaded ones replace states and a cached value, and updates go on."""
    source = updated(make_metric())
    assert source.state_dict() == {}
    source.persistent(mode=True)
    saved = copy.deepcopy(source.state_dict())
    metric = make_metric()
    if target != "new":
        updated(metric, BATCHES[:1])
    if target == "computed":
        metric.compute()
    metric.load_state_dict(saved)
    assert_same(metric.compute(), by_function(metric, *join(BATCHES)))
    extra = make_batch("NNA", 9)
    assert_same(updated(metric, [extra]).compute(), by_function(metric, *join([*BATCHES, extra])))


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


def test_loaded_states_are_not_shared() -> None:
    """Two metrics that loaded one checkpoint do not see each other's updates and resets."""
    source = updated(make_aupimo())
    source.persistent(mode=True)
    saved = source.state_dict()
    first, second = make_aupimo(), make_aupimo()
    first.load_state_dict(saved)
    second.load_state_dict(saved)
    first.update(*make_batch("NNA", 9))
    assert_same(second.compute(), source.compute())
    first.reset()
    assert_same(second.result().aupimos, source.result().aupimos)
    updated(second, [make_batch("NNA", 9)])
    assert len(saved["aupimo_normal_scores"]) == len(BATCHES)


@each_variant
def test_reset_forgets_everything(make_metric: MakeMetric) -> None:
    """After a reset a metric is as new: no data, no value, and the next epoch is right."""
    metric = updated(make_metric())
    metric.compute()
    metric.reset()
    assert_same(metric.metric_state, make_metric().metric_state)
    assert metric.update_count == 0
    assert getattr(metric, "_result", None) is None  # it holds memory
    with pytest.warns(UserWarning, match="there is no image"), pytest.warns(match="before the ``update`` method"):
        value = metric.compute()
    assert all(part.isnan().all() for part in (value if isinstance(value, tuple) else [value]))
    assert_same(updated(metric, BATCHES[1:]).compute(), by_function(metric, *join(BATCHES[1:])))


@each_variant
def test_forward_scores_the_batch_and_adds_it(make_metric: MakeMetric) -> None:
    """Each `forward` returns the value of its batch, and the end value is that of all batches."""
    metric = make_metric()
    for preds, target in BATCHES:
        assert_same(metric(preds, target), by_function(metric, preds, target))
    assert metric.update_count == len(BATCHES)
    assert_same(metric.compute(), by_function(metric, *join(BATCHES)))
    updated(metric, [make_batch("NNA", 9)])
    assert_same(metric.compute(), by_function(metric, *join([*BATCHES, make_batch("NNA", 9)])))


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
