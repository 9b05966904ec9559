"""The metrics in a `MetricCollection`, where they share states, and in the wrappers of torchmetrics."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from helpers import BATCHES, FPR_BOUNDS, assert_same, join, make_aupimo, make_batch
from torch import Tensor
from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import BinaryAUROC
from torchmetrics.wrappers import BootStrapper, MetricTracker, MinMaxMetric, Running

from aupimo_torchmetrics import PIMO, functional

SETTINGS: dict[str, dict[str, Any]] = {
    "score": {},
    "other lower bound": {"fpr_bounds": (2e-3, FPR_BOUNDS[1])},
    "each image": {"reduction": "none"},
    "sampled": {"num_thresholds": 20_000},
    "max": {"shared_fpr": "max"},
}


EXACT = set(SETTINGS) - {"sampled"}
"""Those that keep the same. One that samples thresholds keeps the lowest normal score, too, which takes time."""


def make_collection(**others: Metric) -> MetricCollection:
    """Return a collection of metrics that differ in what `compute` reads only, and of the given ones."""
    return MetricCollection({name: make_aupimo(**settings) for name, settings in SETTINGS.items()} | others)


def by_function(batches: list[Any], **settings: Any) -> Tensor:
    """Return what the function answers for all batches."""
    return functional.aupimo(*join(batches), **{"fpr_bounds": FPR_BOUNDS, **settings})


def groups_of(collection: MetricCollection) -> list[set[str]]:
    """Return the names that share states, the largest group first."""
    return sorted((set(names) for names in collection.compute_groups.values()), key=len, reverse=True)


@pytest.mark.parametrize("first_batch", ["NANA", "NN", "AA", ""])
@pytest.mark.parametrize("by_keyword", [False, True])
def test_settings_of_compute_share_one_state(first_batch: str, by_keyword: bool) -> None:
    """Metrics that keep the same scores are updated once, and each value is right."""
    collection = make_collection()
    batches = [make_batch(first_batch, 7), *BATCHES]
    for preds, target in batches:
        if by_keyword:
            collection.update(preds=preds, target=target)
        else:
            collection.update(preds, target)
    assert groups_of(collection) == [EXACT, {"sampled"}]
    values = collection.compute()
    for name, settings in SETTINGS.items():
        assert_same(values[name], by_function(batches, **settings))
        each_image = by_function(batches, **{**settings, "reduction": "none"})
        assert_same(collection[name].result().aupimos.float(), each_image)


@pytest.mark.parametrize("first_batch", ["NANA", "NN", "AA", ""])
@pytest.mark.parametrize(
    "settings",
    [
        {"normal_buffer": 1},
        {"normal_buffer": None},
        {"normal_buffer": 2**16 + 1},
        {"normal_buffer": 2**40},
        {"fpr_bounds": (FPR_BOUNDS[0], 0.02)},
        {"fpr_bounds": (FPR_BOUNDS[0], FPR_BOUNDS[1] * (1 + 1e-9))},
    ],
    ids=str,
)
def test_settings_of_update_keep_states_apart(first_batch: str, settings: dict[str, Any]) -> None:
    """Metrics that keep different scores never share states, even if the first batch looks alike to both."""
    collection = make_collection(apart=make_aupimo(**settings))
    batches = [make_batch(first_batch, 7), *BATCHES]
    for preds, target in batches:
        collection.update(preds, target)
    assert groups_of(collection)[0] == EXACT
    assert {"apart"} in groups_of(collection)
    values = collection.compute()
    bounds = {name: value for name, value in settings.items() if name == "fpr_bounds"}
    # the buffer changes the order of summation
    assert_same(values["apart"], by_function(batches, **bounds), atol=1e-7)
    assert_same(values["score"], by_function(batches))


@pytest.mark.parametrize("first_batch", ["NANA", "NN", "AA", ""])
def test_foreign_metric_stays_apart(first_batch: str) -> None:
    """A pixel metric of torchmetrics beside ours, and curves, neither take nor give states."""
    collection = make_collection(pixel_auroc=BinaryAUROC(), curves=PIMO(5))
    batches = [make_batch(first_batch, 7), *BATCHES]
    for preds, target in batches:
        collection.update(preds, target)
    assert groups_of(collection)[0] == EXACT
    assert {"pixel_auroc"} in groups_of(collection)
    assert {"curves"} in groups_of(collection)
    values = collection.compute()
    alone = BinaryAUROC()
    preds, target = join(batches)
    alone.update(preds, target)
    assert_same(values["pixel_auroc"], alone.compute())
    curves = functional.pimo(preds, target, 5)
    for name, part in curves._asdict().items():
        assert_same(values[name] if name in values else getattr(values["curves"], name), part)


def test_curves_and_scores_may_share_all_scores() -> None:
    """With every normal score kept, curves and scores are right together, in one group or not."""
    collection = MetricCollection({"all": make_aupimo(normal_buffer=None), "curves": PIMO(5)})
    for preds, target in BATCHES:
        collection.update(preds, target)
    assert_same(collection["all"].compute(), by_function(BATCHES), atol=1e-7)  # order of summation
    assert_same(collection["curves"].compute(), functional.pimo(*join(BATCHES), 5))


def test_curves_by_mean_and_by_maximum_share_one_state() -> None:
    """Curves that differ only in how the FPR is shared are updated once, and both are right."""
    collection = MetricCollection({name: PIMO(5, shared_fpr=name) for name in ("mean", "max")})
    for preds, target in BATCHES:
        collection.update(preds, target)
    assert groups_of(collection) == [{"mean", "max"}]
    curves = {name: collection[name].compute() for name in ("mean", "max")}
    for name, each in curves.items():
        assert_same(each, functional.pimo(*join(BATCHES), 5, shared_fpr=name))
    assert (curves["max"].shared_fpr > curves["mean"].shared_fpr).any()


def test_ids_reach_only_those_who_know_them() -> None:
    """`image_ids` by keyword orders our scores, and a metric that does not know it is not bothered."""
    preds, target = join(BATCHES)
    collection = make_collection(pixel_auroc=BinaryAUROC())
    for ids in ([7, 3, 9, 5], [0, 1, 2, 8], [4, 6, 7]):
        collection.update(preds=preds[ids], target=target[ids], image_ids=torch.tensor(ids))
    values = collection.compute()
    assert_same(values["each image"], by_function(BATCHES, reduction="none"))
    assert_same(values["score"], by_function(BATCHES))
    assert 0.5 < values["pixel_auroc"] < 1


def test_forward_of_a_collection() -> None:
    """`forward` gives the values of the batch, and at the end those of all batches."""
    collection = make_collection()
    for preds, target in BATCHES:
        values = collection(preds, target)
        for name, settings in SETTINGS.items():
            assert_same(values[name], by_function([(preds, target)], **settings))
    values = collection.compute()
    for name, settings in SETTINGS.items():
        assert_same(values[name], by_function(BATCHES, **settings))


def test_epochs_of_a_collection_do_not_leak() -> None:
    """Reset, a second epoch, a clone with a prefix and values asked for in between are all right."""
    collection = make_collection()
    for epoch in range(3):
        batches = [make_batch("NANA", 10 * epoch), make_batch("NNA", 10 * epoch + 1)]
        collection.update(*batches[0])
        assert_same(collection.compute()["score"], by_function(batches[:1]))
        collection.update(*batches[1])
        clone = collection.clone(prefix="val/")
        values, prefixed = collection.compute(), clone.compute()
        for name, settings in SETTINGS.items():
            assert_same(values[name], by_function(batches, **settings))
            assert_same(prefixed["val/" + name], values[name])
            assert_same(collection[name].result().mean, float(by_function(batches, **settings).nanmean()), atol=1e-7)
        clone.reset()
        assert_same(collection["score"].compute(), by_function(batches))
        collection.reset()
        with pytest.warns(UserWarning, match="there is no image"), pytest.warns(match="before the ``update`` method"):
            assert collection["score"].compute().isnan()


def test_pruning_in_a_group_reaches_all_members() -> None:
    """When the one updated member prunes its scores, the others see the pruned ones with their counts."""
    stream = [make_batch("NANN", seed) for seed in range(12)]
    settings = {name: {**each, "normal_buffer": 16} for name, each in SETTINGS.items()}
    collection = MetricCollection({name: make_aupimo(**each) for name, each in settings.items()})
    for i, (preds, target) in enumerate(stream):
        collection.update(preds, target)
        if i % 4 == 3:
            values = collection.compute()
            for name, each in SETTINGS.items():
                # the buffer changes the order of summation
                assert_same(values[name], by_function(stream[: i + 1], **each), atol=1e-7)
    assert groups_of(collection) == [EXACT, {"sampled"}]


@pytest.mark.parametrize("first_batch", ["NANA", "NN", "AA", ""])
@pytest.mark.parametrize("names", [("exact", "300", "900"), ("900", "exact", "300"), ("300", "900", "exact")])
def test_metrics_that_sample_share_what_they_need(first_batch: str, names: tuple[str, ...]) -> None:
    """In any order, metrics that sample thresholds are updated once, apart from an exact one, and all are right."""
    settings = {name: {} if name == "exact" else {"num_thresholds": int(name)} for name in names}
    batches = [make_batch(first_batch, 7), *BATCHES]
    for buffer in (2**16, 16):
        collection = MetricCollection({name: make_aupimo(normal_buffer=buffer, **settings[name]) for name in names})
        for preds, target in batches:
            collection.update(preds, target)
        assert groups_of(collection) == [{"300", "900"}, {"exact"}]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of few thresholds
            for name, value in collection.compute().items():
                assert_same(value, by_function(batches, **settings[name]), atol=1e-7)  # order of summation


@pytest.mark.filterwarnings("ignore:The default value for `maximize`:FutureWarning")  # torchmetrics before 1.7
def test_tracker_knows_the_best_epoch() -> None:
    """`MetricTracker` finds the epoch with the highest score."""
    tracker = MetricTracker(make_aupimo())
    expected = []
    for shift in (0.0, 1.0, 0.5):
        tracker.increment()
        preds, target = BATCHES[0]
        tracker.update(preds + shift * target, target)
        expected.append(by_function([(preds + shift * target, target)]))
    assert_same(tracker.compute_all(), torch.stack(expected))
    assert tracker.best_metric(return_step=True) == (pytest.approx(float(expected[1])), 1)


def test_min_max_follows_the_score() -> None:
    """`MinMaxMetric` reports the lowest and the highest score so far."""
    metric = MinMaxMetric(make_aupimo())
    values = []
    for i, (preds, target) in enumerate(BATCHES):
        metric.update(preds, target)
        values.append(by_function(BATCHES[: i + 1]))
        assert_same(metric.compute(), {"raw": values[-1], "min": min(values), "max": max(values)})


@pytest.mark.filterwarnings("ignore:AUPIMO is undefined:UserWarning")  # a resampled batch may lack a class of images
@pytest.mark.filterwarnings("ignore:AUPIMO is uncertain:UserWarning")  # or enough normal pixels
def test_bootstrap_resamples_images() -> None:
    """`BootStrapper` gives a mean near the score and a spread above zero."""
    torch.manual_seed(0)
    metric = BootStrapper(make_aupimo(), num_bootstraps=20, sampling_strategy="multinomial")
    batches = [make_batch("N" * 15 + "A" * 15, seed) for seed in range(3)]
    for preds, target in batches:
        metric.update(preds, target)
    values = metric.compute()
    assert 0 < values["std"] < 0.1
    assert abs(values["mean"] - by_function(batches)) < 3 * values["std"]


@pytest.mark.parametrize("method", ["update", "forward"])
def test_running_window(method: str) -> None:
    """`Running` scores the last two batches."""
    metric = Running(make_aupimo(), window=2)
    for preds, target in BATCHES:
        getattr(metric, method)(preds, target)
    assert_same(metric.compute(), by_function(BATCHES[1:]))


def test_arithmetic_of_metrics() -> None:
    """A metric can be used in arithmetic, for percent or a mean with another metric."""
    percent, mean = 100 * make_aupimo(), (make_aupimo() + make_aupimo(fpr_bounds=(1e-3, 0.02))) / 2
    for preds, target in BATCHES:
        percent.update(preds, target)
        mean.update(preds, target)
    assert_same(percent.compute(), 100 * by_function(BATCHES))
    other = by_function(BATCHES, fpr_bounds=(1e-3, 0.02))
    assert_same(mean.compute(), (by_function(BATCHES) + other) / 2)
