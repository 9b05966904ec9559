"""AUPRO, AUROC, average precision and F1-max, of pixels and of images: right, undefined with a word, kept once."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
import pytest
import reference
import torch
from helpers import (
    BATCHES,
    FUNCTIONS,
    Batch,
    Operations,
    assert_same,
    ignoring_uncertainty,
    join,
    make_batch,
    make_ragged,
    states_of,
    updated,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchmetrics import MetricCollection

from aupimo_torchmetrics import AUPIMO, AUPRO, ImageAUROC, PixelAUROC, PixelF1Max, functional

NUM_BINS = 2**18

FOUR, THREE = [*FUNCTIONS][:4], [*FUNCTIONS][4:]
"""The metrics of pixels, and those of images."""
SHARES = {"max": 0.0, "mean": 1.0, "top_5%": 0.05}
"""Of how many of its pixels the score of an image is the mean."""
each_metric = pytest.mark.parametrize("metric_class", FOUR)
each_num_bins = pytest.mark.parametrize("num_bins", [None, NUM_BINS])


def make_four(**settings: Any) -> MetricCollection:
    """All four in a collection."""
    return MetricCollection({each.__name__: each(**settings) for each in FOUR})


def expected_four(batches: list[Batch]) -> dict[str, Tensor]:
    """What the functions answer for all batches together."""
    preds, target = join(batches)
    return {each.__name__: FUNCTIONS[each](preds, target) for each in FOUR}


def score_of(scores: Any, image_score: str) -> float:
    """Score of an image by the definition: the mean of the highest ones, rounded to float32."""
    ordered = sorted(map(float, scores))
    number = max(1, int(len(ordered) * SHARES[image_score] + 1e-9))
    return float(np.float32(math.fsum(ordered[-number:]) / number))


def expected_three(preds: Any, target: Any, image_score: str) -> list[Any]:
    """Metrics of images by slow loops, and the threshold of the highest F1; pixels with the value 255 are ignored."""
    scores, are_anomalous = [], []
    for scores_of, mask in zip(preds, target, strict=True):
        is_counted = np.asarray(mask) != 255
        if is_counted.any():
            scores.append(score_of(np.asarray(scores_of.float())[is_counted], image_score))
            are_anomalous.append(bool((np.asarray(mask)[is_counted] == 1).any()))
    arrays = np.array(scores), np.array(are_anomalous)
    return [reference.auroc(*arrays), reference.average_precision(*arrays), *reference.f1_max(*arrays)]


@settings(max_examples=settings.default.max_examples // 3)
@given(seed=st.integers(0, 2**31), classes=st.text("NA", max_size=9), image_score=st.sampled_from([*SHARES]))
def test_metrics_of_images_are_those_of_the_definition(seed: int, classes: str, image_score: str) -> None:
    """Of images of any sizes, with ties and ignored pixels, the values are those of slow loops, in any batches.

    The lowest threshold of the highest F1 is, too, in the unit of the images' scores.
    """
    maps, masks = make_ragged("NA" + classes, seed % 1000)
    random = torch.Generator().manual_seed(seed)
    maps = [each.mul(2).round() if seed % 2 else each.half() for each in maps]
    marked = [torch.where(torch.rand(mask.shape, generator=random) < 0.2, 255, mask.long()) for mask in masks]
    *expected, threshold = expected_three(maps, marked, image_score)
    for metric_class, value in zip(THREE, expected, strict=True):
        metric = metric_class(image_score, ignore_index=255)
        cut = seed % (len(maps) + 1)
        updated(metric, [(maps[:cut], marked[:cut]), (maps[cut:], marked[cut:])])
        assert float(metric.compute()) == pytest.approx(value, abs=1e-7)
        assert_same(metric.compute(), FUNCTIONS[metric_class](maps, marked, image_score, ignore_index=255))
    assert metric.result().threshold == threshold
    given = functional.image_f1_max(maps, marked, image_score, ignore_index=255, return_threshold=True)
    assert (float(given[0]), float(given[1])) == (pytest.approx(value, abs=1e-7), threshold)


@pytest.mark.parametrize(
    "make_metric", [*FUNCTIONS, *(partial(each, num_bins=NUM_BINS) for each in FOUR), partial(ImageAUROC, "top_5%")]
)
@ignoring_uncertainty
def test_undefined_values_are_nan(make_metric: Any) -> None:
    """Without a normal or an anomalous pixel or image the value is NaN, and one warning names metric and cause."""
    maps = torch.rand(2, 4, 4)
    nothing = "there is no (region|pixel) in the masks"
    for target, cause in (
        (torch.zeros(2, 4, 4), f"({nothing}|none of the 2 images is anomalous)"),
        (torch.ones(2, 4, 4), "(there is no pixel outside of the masks|none of the 2 images is normal)"),
        (torch.zeros(0, 4, 4), f"({nothing}|there is no image)"),
    ):
        metric = updated(make_metric(), [(maps[: len(target)], target)])
        text = rf"^{type(metric).__name__} is undefined \(NaN\): {cause}"
        with pytest.warns(UserWarning, match=text) as caught:
            assert metric.compute().isnan()
        assert len(caught) == 1
        assert math.isnan(metric.result().value)
        assert all(bound.isnan() for bound in getattr(metric, "bounds", list)())
        with pytest.warns(UserWarning, match=text) as caught:
            assert FUNCTIONS[type(metric)](maps[: len(target)], target).isnan()
        assert len(caught) == 1
        metric.update(*BATCHES[0])  # it goes on
        assert not metric.compute().isnan()


@pytest.mark.parametrize("by_hand", [False, True])
def test_four_keep_their_states_once_and_rank_once(by_hand: bool) -> None:
    """Together they are one compute group with the same tensors, and one of them ranks for all, after each change."""
    collection = MetricCollection([each() for each in FOUR], compute_groups=True)
    for i in range(len(BATCHES)):
        collection.update(*BATCHES[i])
        members = dict(collection.items(copy_state=False))
        with Operations() as operations:
            values = {name: m.compute() for name, m in members.items()} if by_hand else collection.compute()
        assert operations.names.count("unique_consecutive") == 1
        assert_same(values, expected_four(BATCHES[: i + 1]))
    assert [sorted(each) for each in collection.compute_groups.values()] == [sorted(c.__name__ for c in FOUR)]
    first, *others = members.values()
    assert all(member.metric_state[name] is state for member in others for name, state in first.metric_state.items())


def test_values_of_a_group_follow_its_states() -> None:
    """After reset, merge, load, and in a second group with other data of the same size, no rank is a stale one."""
    one, other = (updated(make_four(), [batch]) for batch in BATCHES[:2])
    for _ in range(2):
        assert_same(one.compute(), expected_four(BATCHES[:1]))
        assert_same(other.compute(), expected_four(BATCHES[1:2]))
    member = one["PixelAUROC"]
    member.merge_state(other["PixelAUROC"])
    assert_same(member.compute(), expected_four(BATCHES[1::-1])["PixelAUROC"])
    one.reset()
    updated(one, BATCHES[1:])
    assert_same(one.compute(), expected_four(BATCHES[1:]))
    clone = one.clone(prefix="val/")
    one.reset()
    assert_same(clone.compute(), {f"val/{name}": value for name, value in expected_four(BATCHES[1:]).items()})


def test_threads_share_no_ranks() -> None:
    """Metrics that other threads compute at the same time change no value."""
    expected = [expected_four([batch]) for batch in BATCHES]

    def compute(i: int) -> None:
        four = updated(make_four(), [BATCHES[i % 3]])
        for _ in range(5):
            assert_same({name: metric.compute() for name, metric in four.items()}, expected[i % 3])
            four.update(*make_batch("", 0))  # so that the next value is computed anew

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(compute, range(8)))


@each_num_bins
@ignoring_uncertainty
def test_limits_of_aupro_share_states(num_bins: int | None) -> None:
    """Each limit has its own value, that of the function, of the same states."""
    limits = {"low": 0.05, "usual": 0.3, "all": 1}
    collection = MetricCollection({name: AUPRO(limit, num_bins=num_bins) for name, limit in limits.items()})
    updated(collection, BATCHES)
    assert len(collection.compute_groups) == 1
    expected = {name: functional.aupro(*join(BATCHES), limit) for name, limit in limits.items()}
    assert_same(dict(collection.compute()), expected, atol=0.0 if num_bins is None else 1e-3)


@pytest.mark.filterwarnings("ignore:AUPIMO is")
@ignoring_uncertainty
def test_histograms_of_three_are_one_apart_from_what_keeps_other_scores() -> None:
    """As histograms, AUROC, AP and F1-max are one group; AUPRO adds up regions and is another; all are right."""
    others = {"exact": PixelAUROC(), "few": PixelAUROC(num_bins=np.int64(64)), "marked": PixelAUROC(ignore_index=255)}
    collection = make_four(num_bins=NUM_BINS)
    collection.add_metrics({**others, "score": AUPIMO()})
    updated(collection, BATCHES)
    groups = sorted(sorted(each) for each in collection.compute_groups.values())
    three = ["PixelAUROC", "PixelAveragePrecision", "PixelF1Max"]
    assert groups == [["AUPRO"], three, *[[name] for name in (*others, "score")]]
    for name, exact in expected_four(BATCHES).items():
        low, high = collection[name].bounds()
        assert low <= exact <= high
        assert low <= collection[name].compute() <= high
    leaders = [collection[each[0]] for each in groups[:2]]
    assert sum(state.nbytes for metric in leaders for state in metric.metric_state.values()) < 16e6


@each_metric
@each_num_bins
@ignoring_uncertainty
def test_batches_split_and_order_do_not_matter(metric_class: type[Any], num_bins: int | None) -> None:
    """Many updates of single images of different sizes, in any order, give what one update of all gives."""
    maps, masks = make_ragged("NANANAAN" * 2, 3)
    expected = updated(metric_class(num_bins=num_bins), [(maps, masks)]).compute()
    batches = [([maps[i]], [masks[i]]) for i in torch.randperm(len(maps)).tolist()]
    metric = updated(metric_class(num_bins=num_bins), batches)
    assert_same(metric.compute(), expected, atol=1e-7)  # order of summation
    assert all(len(parts) < 9 for parts in states_of(metric).values())
    if num_bins is None:
        assert_same(expected, FUNCTIONS[metric_class](maps, masks))


@pytest.mark.parametrize(("dtype", "bytes_of_a_pixel"), [(torch.float32, 4), (torch.float16, 2), (torch.bfloat16, 2)])
def test_each_score_is_kept_once(dtype: torch.dtype, bytes_of_a_pixel: int) -> None:
    """The exact states are the scores in their precision, and a bit for each pixel near a mask."""
    preds, target = join([make_batch("NNA" * 20, 0)])
    metric = updated(PixelAUROC(), [(preds.to(dtype), target)] * 3)
    kept = sum(part.nbytes for parts in states_of(metric).values() for part in parts)
    assert 3 * bytes_of_a_pixel * preds.numel() <= kept <= 3 * (bytes_of_a_pixel + 0.02) * preds.numel()
    metric.compute()
    assert sum(part.nbytes for parts in states_of(metric).values() for part in parts) == kept


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


@ignoring_uncertainty
def test_threshold_reaches_the_highest_f1() -> None:
    """The lowest threshold with the highest F1 is in the result, exactly and by bins, and outlives the data."""
    preds, target = join(BATCHES)
    for num_bins in (None, NUM_BINS):
        metric = PixelF1Max(num_bins=num_bins)
        for maps, masks in BATCHES:
            metric(maps, masks)  # the value of a batch, which is not the threshold of all
        value, result = metric.compute(), metric.result()
        found = preds >= result.threshold
        f1 = 2 * (found & target).sum() / (found.sum() + target.sum())
        assert_same(f1, value, atol=1e-7)
        metric.reset()
        assert result.value == pytest.approx(float(value))
        metric.update(preds, target & False)
        with pytest.warns(UserWarning, match="PixelF1Max is undefined"):
            assert math.isnan(metric.result().threshold)
    expected = reference.f1_max(preds.numpy().ravel(), target.numpy().ravel())
    for maps, masks in ((preds, target), (preds.double(), target), (preds.numpy(), target.numpy())):
        value, threshold = functional.pixel_f1_max(maps, masks, return_threshold=True)
        assert (value, threshold) == (pytest.approx(expected[0]), np.float32(expected[1]))


@each_metric
def test_bounds_tell_how_certain_a_histogram_is(metric_class: type[Any]) -> None:
    """A wide interval causes one warning with both ends; without bins both bounds are the value."""
    exact = updated(metric_class(), BATCHES)
    assert_same(exact.bounds(), (exact.compute(), exact.compute()))
    shifted = [(preds + 1e5, target) for preds, target in BATCHES]
    crowded = updated(metric_class(num_bins=NUM_BINS), shifted)
    with pytest.warns(UserWarning, match=rf"^{metric_class.__name__} is uncertain.*`num_bins=None`") as caught:
        value = crowded.compute()
    assert len(caught) == 1
    low, high = crowded.bounds()
    assert f"{float(low):.4f}" in str(caught[0].message)
    assert low < value <= high or low <= value < high
    assert low <= updated(metric_class(), shifted).compute() <= high


@pytest.mark.parametrize("metric_class", THREE)
def test_an_image_without_a_score_makes_the_value_nan(metric_class: type[Any]) -> None:
    """Both infinities have no mean: no image is ranked then, and the warning says so. The highest score is defined."""
    preds, target = make_batch("NANA", 0)
    preds[0, 0, :2] = torch.tensor([math.inf, -math.inf])
    metric = updated(metric_class("mean"), [(preds, target)])
    with pytest.warns(UserWarning, match=rf"^{metric_class.__name__} is undefined \(NaN\): the score of 1 of the 4 im"):
        assert metric.compute().isnan()
    assert metric.result().bounds == pytest.approx((math.nan, math.nan), nan_ok=True)
    assert not updated(metric_class(), [(preds, target)]).compute().isnan()
