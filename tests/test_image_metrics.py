"""AUROC, average precision and F1-max of images: they are those of their definitions, and behave as any metric does."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import reference
import torch
from helpers import BATCHES, FUNCTIONS, assert_same, join, make_batch, make_ragged, states_of, updated
from hypothesis import given, settings
from hypothesis import strategies as st
from torchmetrics import MetricCollection

from aupimo_torchmetrics import ImageAUROC, ImageAveragePrecision, ImageF1Max, functional

THREE = [ImageAUROC, ImageAveragePrecision, ImageF1Max]
SHARES = {"max": 0.0, "mean": 1.0, "top_5%": 0.05}
each_metric = pytest.mark.parametrize("metric_class", THREE)


def score_of(scores: Any, image_score: str) -> float:
    """Score of an image by the definition: the mean of the highest ones, rounded to float32."""
    ordered = sorted(map(float, scores))
    number = max(1, int(len(ordered) * SHARES[image_score] + 1e-9))
    return float(np.float32(math.fsum(ordered[-number:]) / number))


def expected(preds: Any, target: Any, image_score: str, ignore_index: int = -1) -> dict[type[Any], float]:
    """All three by slow loops."""
    scores, are_anomalous = [], []
    for scores_of, mask in zip(preds, target, strict=True):
        is_counted = np.asarray(mask) != ignore_index
        if is_counted.any():
            scores.append(score_of(np.asarray(scores_of.float())[is_counted], image_score))
            are_anomalous.append(bool((np.asarray(mask)[is_counted] == 1).any()))
    arrays = np.array(scores), np.array(are_anomalous)
    functions = (reference.auroc, reference.average_precision, lambda *of: reference.f1_max(*of)[0])
    return {each: function(*arrays) for each, function in zip(THREE, functions, strict=True)}


@settings(max_examples=settings.default.max_examples // 3)
@given(seed=st.integers(0, 2**31), classes=st.text("NA", max_size=9), image_score=st.sampled_from([*SHARES]))
def test_values_are_those_of_the_definition(seed: int, classes: str, image_score: str) -> None:
    """Of images of any sizes, with ties and ignored pixels, the values are those of slow loops, in any batches."""
    maps, masks = make_ragged("NA" + classes, seed % 1000)
    random = torch.Generator().manual_seed(seed)
    maps = [each.mul(2).round() if seed % 2 else each.half() for each in maps]
    marked = [torch.where(torch.rand(mask.shape, generator=random) < 0.2, 255, mask.long()) for mask in masks]
    wanted = expected(maps, marked, image_score, 255)
    for metric_class in THREE:
        metric = metric_class(image_score, ignore_index=255)
        cut = seed % (len(maps) + 1)
        updated(metric, [(maps[:cut], marked[:cut]), (maps[cut:], marked[cut:])])
        assert float(metric.compute()) == pytest.approx(wanted[metric_class], abs=1e-7)
        assert_same(metric.compute(), FUNCTIONS[metric_class](maps, marked, image_score, ignore_index=255))


@pytest.mark.parametrize("image_score", SHARES)
def test_values_are_those_of_scikit_learn(image_score: str) -> None:
    """AUROC and average precision equal scikit-learn's, if it is installed."""
    sklearn = pytest.importorskip("sklearn.metrics")
    preds, target = join([make_batch("NANAANNNA", seed) for seed in range(9)])
    scores = [score_of(each.flatten(), image_score) for each in preds]
    labels = target.flatten(1).any(1).numpy()
    values = sklearn.roc_auc_score(labels, scores), sklearn.average_precision_score(labels, scores)
    assert functional.image_auroc(preds, target, image_score) == pytest.approx(values[0], abs=1e-7)
    assert functional.image_average_precision(preds, target, image_score) == pytest.approx(values[1], abs=1e-7)


@each_metric
def test_undefined_values_are_nan(metric_class: type[Any]) -> None:
    """Without a normal or without an anomalous image the value is NaN, and one warning says which is missing."""
    texts = {"NN": "none of the 2 images is anomalous", "AA": "none of the 2 images is normal", "": "there is no image"}
    for classes, text in texts.items():
        metric = updated(metric_class(), [make_batch(classes, 0)])
        with pytest.warns(UserWarning, match=rf"^{metric_class.__name__} is undefined \(NaN\): {text}") as caught:
            assert metric.compute().isnan()
        assert len(caught) == 1
        assert math.isnan(metric.result().value)
        metric.update(*BATCHES[0])  # it goes on
        assert not metric.compute().isnan()


@each_metric
def test_an_image_without_a_score_makes_the_value_nan(metric_class: type[Any]) -> None:
    """Both infinities have no mean: no image is ranked then, and the warning says so. The highest score is defined."""
    preds, target = make_batch("NANA", 0)
    preds[0, 0, :2] = torch.tensor([math.inf, -math.inf])
    metric = updated(metric_class("mean"), [(preds, target)])
    with pytest.warns(
        UserWarning, match=rf"^{metric_class.__name__} is undefined \(NaN\): the score of 1 of the 4 images"
    ):
        assert metric.compute().isnan()
    assert metric.result().bounds == pytest.approx((math.nan, math.nan), nan_ok=True)
    assert not updated(metric_class(), [(preds, target)]).compute().isnan()


@each_metric
def test_wrong_settings_are_errors(metric_class: type[Any]) -> None:
    """A wrong setting is named."""
    for wrong in ("median", "top_101%", "top_%", "top_0%"):
        with pytest.raises(ValueError, match="`image_score` to be 'max', 'mean' or a share as 'top_1%', but got"):
            metric_class(wrong)
    with pytest.raises(ValueError, match="Unexpected keyword arguments"):
        metric_class(top=1)


def test_three_keep_their_states_once() -> None:
    """Together they are one group, apart from those of another score of an image; five bytes are kept of an image."""
    collection = MetricCollection([each() for each in THREE])
    collection.add_metrics({"mean": ImageAUROC("mean"), "ignoring": ImageAUROC(ignore_index=9)})
    updated(collection, BATCHES)
    groups = sorted(sorted(each) for each in collection.compute_groups.values())
    assert groups == [sorted(each.__name__ for each in THREE), ["ignoring"], ["mean"]]
    preds, target = join(BATCHES)
    values = collection.compute()
    for metric_class in THREE:
        assert_same(values[metric_class.__name__], FUNCTIONS[metric_class](preds, target))
    assert_same(values["mean"], functional.image_auroc(preds, target, "mean"))
    states = states_of(collection["ImageAUROC"])
    assert sum(part.nbytes for name in states if "image" in name for part in states[name]) == 5 * len(preds)


def test_the_threshold_reaches_the_highest_f1() -> None:
    """The threshold of the result is the lowest one with the highest F1, in the unit of the images' scores."""
    preds, target = join(BATCHES)
    scores, labels = preds.flatten(1).amax(1).numpy(), target.flatten(1).any(1).numpy()
    wanted = reference.f1_max(scores, labels)
    result = updated(ImageF1Max()).result()
    assert (result.value, result.threshold) == (pytest.approx(wanted[0]), wanted[1])
    value, threshold = functional.image_f1_max(preds, target, return_threshold=True)
    assert (float(value), float(threshold)) == (pytest.approx(wanted[0]), wanted[1])
