"""The metrics in a `MetricCollection`, where they share states, and in the wrappers of torchmetrics."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from helpers import BATCHES, FPR_BOUNDS, assert_same, join, make_aupimo, make_batch, updated
from torch import Tensor
from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import BinaryAUROC
from torchmetrics.wrappers import MetricTracker, MinMaxMetric, Running

from aupimo_torchmetrics import PIMO, functional

SETTINGS: dict[str, dict[str, Any]] = {
    "score": {},
    "other lower bound": {"fpr_bounds": (2e-3, FPR_BOUNDS[1])},
    "each image": {"reduction": "none"},
    "sampled": {"num_thresholds": 20_000},
    "sampled less": {"num_thresholds": 10_000},
    "max": {"shared_fpr": "max"},
}
SAMPLED = {"sampled", "sampled less"}
EXACT = set(SETTINGS) - SAMPLED
"""Those that keep the same. One that samples thresholds keeps the lowest normal score, too, which takes time."""

each_first_batch = pytest.mark.parametrize("first_batch", ["NN", "AA", ""])


def make_collection(**others: Metric) -> MetricCollection:
    """Return a collection of metrics that differ in what `compute` reads only, and of the given ones."""
    return MetricCollection({name: make_aupimo(**settings) for name, settings in SETTINGS.items()} | others)


def by_function(batches: list[Any], **settings: Any) -> Tensor:
    """Return what the function answers for all batches."""
    return functional.aupimo(*join(batches), **{"fpr_bounds": FPR_BOUNDS, **settings})


def assert_right(values: dict[str, Any], batches: list[Any], atol: float = 0.0) -> None:
    """Assert that each value of `make_collection` is that of the function."""
    for name, settings in SETTINGS.items():
        assert_same(values[name], by_function(batches, **settings), atol=atol)


def groups_of(collection: MetricCollection) -> list[set[str]]:
    """Return the names that share states, the largest group first."""
    return sorted((set(names) for names in collection.compute_groups.values()), key=len, reverse=True)


@each_first_batch
def test_settings_of_compute_share_one_state(first_batch: str) -> None:
    """Metrics that keep the same scores are updated once, and each value is right."""
    collection = make_collection()
    batches = [make_batch(first_batch, 7), *BATCHES]
    for preds, target in batches:
        collection.update(preds=preds, target=target) if first_batch else collection.update(preds, target)
    assert groups_of(collection) == [EXACT, SAMPLED]
    assert_right(collection.compute(), batches)
    for name, settings in SETTINGS.items():
        each_image = by_function(batches, **{**settings, "reduction": "none"})
        assert_same(collection[name].result().aupimos.float(), each_image)


OTHER_BUFFERS: list[dict[str, Any]] = [{"normal_buffer": each} for each in (1, None, 2**16 + 1)]
OTHER_BOUNDS: list[dict[str, Any]] = [{"fpr_bounds": (1e-3, each)} for each in (0.02, 0.01 * (1 + 1e-9))]


@each_first_batch
@pytest.mark.parametrize("settings", [*OTHER_BUFFERS, *OTHER_BOUNDS], ids=str)
def test_settings_of_update_keep_states_apart(first_batch: str, settings: dict[str, Any]) -> None:
    """Metrics that keep different scores never share states, even if the first batch looks alike to both."""
    batches = [make_batch(first_batch, 7), *BATCHES]
    collection = updated(make_collection(apart=make_aupimo(**settings)), batches)
    assert groups_of(collection)[0] == EXACT
    assert {"apart"} in groups_of(collection)
    values = collection.compute()
    bounds = {name: value for name, value in settings.items() if name == "fpr_bounds"}
    # the buffer changes the order of summation
    assert_same(values["apart"], by_function(batches, **bounds), atol=1e-7)
    assert_same(values["score"], by_function(batches))


@each_first_batch
def test_other_metrics_stay_apart(first_batch: str) -> None:
    """Beside ours, a pixel metric of torchmetrics neither takes nor gives states; curves share only with curves."""
    others = {"pixel_auroc": BinaryAUROC(), "curves": PIMO(5), "strict": PIMO(5, shared_fpr="max")}
    all_kept = make_aupimo(normal_buffer=None)  # which is right in one group with the curves or not
    batches = [make_batch(first_batch, 7), *BATCHES]
    collection = updated(make_collection(**others, all_kept=all_kept), batches)
    assert groups_of(collection)[0] == EXACT
    assert {"pixel_auroc"} in groups_of(collection)
    assert any({"curves", "strict"} <= group <= {"curves", "strict", "all_kept"} for group in groups_of(collection))
    preds, target = join(batches)
    assert_same(collection["pixel_auroc"].compute(), updated(BinaryAUROC(), [(preds, target)]).compute())
    assert_same(collection["all_kept"].compute(), by_function(batches), atol=1e-7)  # order of summation
    curves, strict = (collection[name].compute() for name in ("curves", "strict"))
    assert_same(curves, functional.pimo(preds, target, 5))
    assert_same(strict, functional.pimo(preds, target, 5, shared_fpr="max"))
    assert (strict.shared_fpr > curves.shared_fpr).any()


def test_ids_reach_only_those_who_know_them() -> None:
    """`image_ids` by keyword orders our scores, and a metric that does not know it is not bothered."""
    preds, target = join(BATCHES)
    collection = make_collection(pixel_auroc=BinaryAUROC())
    for ids in ([7, 3, 9, 5], [0, 1, 2, 8], [4, 6, 7]):
        collection.update(preds=preds[ids], target=target[ids], image_ids=torch.tensor(ids))
    values = collection.compute()
    assert_right(values, BATCHES)
    assert 0.5 < values["pixel_auroc"] < 1


def test_epochs_of_a_collection_do_not_leak() -> None:
    """Reset, a second epoch, `forward`, a clone with a prefix and values asked for in between are all right."""
    collection = make_collection()
    for epoch in range(3):
        batches = [make_batch("NANA", 10 * epoch), make_batch("NNA", 10 * epoch + 1)]
        collection.update(*batches[0])
        assert_right(collection.compute(), batches[:1])
        assert_right(collection(*batches[1]), batches[1:])
        clone = collection.clone(prefix="val/")
        assert_right(collection.compute(), batches)
        assert_right({name.removeprefix("val/"): value for name, value in clone.compute().items()}, batches)
        for name, settings in SETTINGS.items():
            assert_same(collection[name].result().mean, float(by_function(batches, **settings).nanmean()), atol=1e-7)
        clone.reset()
        assert_same(collection["score"].compute(), by_function(batches))
        collection.reset()
        with pytest.warns(UserWarning, match="there is no image"), pytest.warns(match="before the ``update`` method"):
            assert collection["score"].compute().isnan()


def test_pruning_in_a_group_reaches_all_members() -> None:
    """When the one updated member prunes its scores, the others see the pruned ones with their counts."""
    stream = [make_batch("NANN", seed) for seed in range(12)]
    metrics = {name: make_aupimo(**each, normal_buffer=16) for name, each in SETTINGS.items()}
    collection = MetricCollection(metrics)
    for i, batch in enumerate(stream):
        collection.update(*batch)
        if i % 4 == 3:
            assert_right(collection.compute(), stream[: i + 1], atol=1e-7)  # the buffer changes the order of summation
    assert groups_of(collection) == [EXACT, SAMPLED]


@pytest.mark.filterwarnings("ignore:The default value for `maximize`:FutureWarning")  # torchmetrics before 1.7
def test_wrappers_follow_the_score() -> None:
    """`MetricTracker` knows the best epoch, `MinMaxMetric` both ends so far, and `Running` scores the last batches."""
    preds, target = BATCHES[0]
    epochs = [(preds + shift * target, target) for shift in (0.0, 1.0, 0.5)]
    expected = [by_function([epoch]) for epoch in epochs]
    tracker, min_max, running = MetricTracker(make_aupimo()), MinMaxMetric(make_aupimo()), Running(make_aupimo(), 2)
    for i, epoch in enumerate(epochs):
        tracker.increment()
        tracker.update(*epoch)
        assert_same(running(*epoch), expected[i])
        assert_same(running.compute(), by_function(epochs[max(0, i - 1) : i + 1]))
        min_max.update(*epoch)
        values = [by_function(epochs[: k + 1]) for k in range(i + 1)]
        assert_same(min_max.compute(), {"raw": values[-1], "min": min(values), "max": max(values)})
    assert_same(tracker.compute_all(), torch.stack(expected))
    assert tracker.best_metric(return_step=True) == (pytest.approx(float(expected[1])), 1)
