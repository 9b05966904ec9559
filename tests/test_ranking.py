"""Pixel metrics are those of their definitions, whatever the scores, and a histogram bounds them with certainty."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import reference
import torch
from helpers import caught_texts
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from aupimo_torchmetrics import AUPRO, PixelAUROC, PixelAveragePrecision, PixelF1Max, PixelResult, functional
from aupimo_torchmetrics.functional import aupro, pixel_auroc, pixel_average_precision, pixel_f1_max

EXACT = 1e-12
"""Sums of float64 in another order."""

NUM_NORMAL, NUM_MASK, IGNORED = 300, 80, 255


def continuous(random: np.random.Generator, shift: float, size: int) -> NDArray[Any]:
    """Normally distributed scores around a shift."""
    return (random.standard_normal(size) + shift).astype(np.float32)


def with_infinities(random: np.random.Generator, shift: float, size: int) -> NDArray[Any]:
    """The same with some that are infinite."""
    scores = continuous(random, shift, size)
    scores[::9], scores[4::9] = math.inf, -math.inf
    return scores


KINDS = {
    "continuous": continuous,
    "tied": lambda *args: continuous(*args).round(1),
    "quantised": lambda *args: (continuous(*args) * 40 + 100).clip(0, 255).astype(np.uint8).astype(np.float32),
    "infinite": with_infinities,
    "all infinite": lambda random, _, size: random.choice([-math.inf, math.inf], size).astype(np.float32),
    "negative": lambda *args: continuous(*args) - 100,
    "huge": lambda *args: (continuous(*args) * 6e37).astype(np.float32),
    "tiny": lambda *args: (continuous(*args) * 1e-42).astype(np.float32),
    "offset": lambda *args: (continuous(*args) + 1e6).astype(np.float32),
    "outlier": lambda *args: np.concatenate([[1e30, -1e30], continuous(*args)[2:]]).astype(np.float32),
    "heavy tail": lambda *args: np.exp(4 * continuous(*args)),
    "constant": lambda _random, _shift, size: np.full(size, 0.5, dtype=np.float32),
    "zeros of either sign": lambda random, _, size: random.choice([-0.0, 0.0, 1.0], size).astype(np.float32),
    "float64": lambda random, shift, size: 1e9 + 1e-6 * (random.standard_normal(size) + shift),
}
each_kind = pytest.mark.parametrize("kind", KINDS)

METRICS: dict[str, Any] = {
    "auroc": PixelAUROC,
    "ap": PixelAveragePrecision,
    "f1": PixelF1Max,
    **{f"aupro {limit}": lambda limit=limit, **settings: AUPRO(limit, **settings) for limit in (0.05, 0.3, 1.0)},
}


def make_scores(kind: str, seed: int = 0) -> tuple[NDArray[Any], NDArray[Any]]:
    """Normal scores and mask scores of a kind; the latter are higher on average."""
    random = np.random.default_rng(seed)
    return KINDS[kind](random, 0.0, NUM_NORMAL), KINDS[kind](random, 1.0, NUM_MASK)


def as_images(normal: Any, mask: Any, region_size: int = 7) -> tuple[list[Tensor], list[Tensor]]:
    """A normal image of one row, and one with a region in every other row; the rows between are ignored."""
    normal, mask = torch.as_tensor(normal)[None], torch.as_tensor(mask)
    regions = mask.new_zeros(-(-len(mask) // region_size), 2, region_size)
    target = torch.full_like(regions, IGNORED)
    index = torch.arange(len(mask))
    regions[index // region_size, 0, index % region_size] = mask
    target[index // region_size, 0, index % region_size] = 1
    return [normal, regions.flatten(0, 1)], [torch.zeros_like(normal), target.flatten(0, 1)]


def results(
    normal: Any, mask: Any, num_bins: int | None = None, region_size: int = 7
) -> dict[str, tuple[PixelResult, list[float]]]:
    """All pixel metrics of scores, exactly or by bins, with their rounded bounds."""
    found = {}
    with caught_texts():
        for name, make_metric in METRICS.items():
            metric = make_metric(num_bins=num_bins, ignore_index=IGNORED)
            metric.update(*as_images(normal, mask, region_size))
            found[name] = metric.result(), [float(bound) for bound in metric.bounds()]
    return found


def by_loops(scores: NDArray[Any], is_anomalous: NDArray[Any]) -> tuple[float, ...]:
    """AUROC, average precision, F1-max and its lowest threshold by slow loops."""
    found = reference.auroc(scores, is_anomalous), reference.average_precision(scores, is_anomalous)
    return *found, *reference.f1_max(scores, is_anomalous)


def by_scikit_learn(scores: NDArray[Any], is_anomalous: NDArray[Any]) -> tuple[float, ...]:
    """AUROC, average precision and F1-max by scikit-learn."""
    metrics = pytest.importorskip("sklearn.metrics")
    places = np.unique(scores, return_inverse=True)[1].astype(float)  # it refuses infinity
    precision, recall, _ = metrics.precision_recall_curve(is_anomalous, places)
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-300)
    found = metrics.roc_auc_score(is_anomalous, places), metrics.average_precision_score(is_anomalous, places)
    return *found, f1.max()


@each_kind
@pytest.mark.parametrize("source", ["loops", "scikit-learn"])
def test_values_are_those_of_their_definitions(kind: str, source: str) -> None:
    """All four are those of slow loops, and three those of scikit-learn, whatever the scores are."""
    normal, mask = make_scores(kind, seed=1)
    images = as_images(normal.astype(np.float64), mask.astype(np.float64))
    scores, is_anomalous = np.concatenate([normal, mask]), np.arange(NUM_NORMAL + NUM_MASK) >= NUM_NORMAL
    expected = [*by_loops(scores, is_anomalous)] if source == "loops" else [*by_scikit_learn(scores, is_anomalous)]
    f1, threshold = pixel_f1_max(*images, ignore_index=IGNORED, return_threshold=True)
    others = [float(each(*images, ignore_index=IGNORED)) for each in (pixel_auroc, pixel_average_precision)]
    assert [*others, float(f1)] == pytest.approx(expected[:3], abs=EXACT)
    if source != "loops":
        return
    assert float(threshold) == expected[3]
    # the reference takes every pixel: a region is an image of its own
    parts = [mask[start : start + 7][None] for start in range(0, NUM_MASK, 7)]
    masks = [np.zeros((1, NUM_NORMAL), dtype=bool), *(np.ones(part.shape, dtype=bool) for part in parts)]
    regions = reference.aupro([normal[None], *parts], masks, 0.3)
    assert aupro(*images, 0.3, ignore_index=IGNORED, reduction="none").tolist() == pytest.approx(regions, abs=EXACT)
    assert float(aupro(*images, 0.3, ignore_index=IGNORED)) == pytest.approx(sum(regions) / len(regions), abs=EXACT)


def test_values_of_many_scores_are_those_of_sorting_all() -> None:
    """So many scores that they are ranked piece by piece are ranked as if all were sorted."""
    random = np.random.default_rng(0)
    normal = np.exp(random.standard_normal(2_300_000, dtype=np.float32)).round(4)
    mask = np.exp(random.standard_normal(30_000, dtype=np.float32) + 1).round(4)
    mask[:3] = math.inf, 1e30, -1.0
    ordered = np.sort(normal)
    above = len(normal) - np.searchsorted(ordered, mask, side="right")
    at_least = len(normal) - np.searchsorted(ordered, mask)
    images = as_images(normal.astype(np.float64), mask.astype(np.float64), 30_000)
    auroc = 1 - np.mean(above + at_least) / (2 * len(normal))
    assert float(pixel_auroc(*images, ignore_index=IGNORED)) == pytest.approx(auroc, abs=EXACT)
    found = len(mask) - np.searchsorted(np.sort(mask), mask)
    precision = np.mean(found / (found + at_least))
    assert float(pixel_average_precision(*images, ignore_index=IGNORED)) == pytest.approx(precision, abs=EXACT)


def test_perfect_and_useless_scores_are_exact() -> None:
    """All mask pixels above all normal ones score exactly 1; below them AUROC and AUPRO are exactly 0."""
    low, high = torch.rand(1000, dtype=torch.float64), 2 + torch.rand(77, dtype=torch.float64)
    assert all(result.value == 1 for result, _ in results(low, high).values())
    assert all(results(high, low)[name][0].value == 0 for name in METRICS if name.startswith("au"))
    assert results(torch.zeros(10), torch.zeros(3))["auroc"][0].value == 0.5


@pytest.mark.parametrize("fpr_limit", [0.03, 0.3, 1])
@pytest.mark.parametrize("size", [(1, 1), (1, 9), (13, 7), (64, 65)])
def test_regions_are_those_of_a_flood(size: tuple[int, int], fpr_limit: float) -> None:
    """Each region of masks of any sizes and density has its score, over several updates of many images."""
    random = np.random.default_rng(size[1])
    sizes = [size] * 5 + [size[::-1]] * 5
    shares = (0.0, 0.1, 0.5, 0.9, 0.02) * 2
    masks = [random.random(each) < share for each, share in zip(sizes, shares, strict=True)]
    maps = [random.standard_normal(each).round(1) for each in sizes]
    expected = reference.aupro(maps, masks, fpr_limit)
    scores = aupro(maps, masks, fpr_limit, reduction="none")
    assert scores.dtype == np.float64
    assert scores.tolist() == pytest.approx(expected, abs=EXACT)
    mean = sum(expected) / len(expected)
    assert float(aupro(maps, masks, fpr_limit)) == pytest.approx(mean, abs=EXACT)
    metric = AUPRO(fpr_limit)
    for batch in (slice(3), slice(3, 3), slice(3, 10)):
        metric.update([*map(torch.from_numpy, maps[batch])], [*map(torch.from_numpy, masks[batch])])
    assert float(metric.compute()) == pytest.approx(mean, abs=1e-7)


def test_each_region_is_undefined_without_normal_pixels() -> None:
    """Scores of regions are NaN, one for each, or one if there is no region."""
    maps, masks = torch.rand(2, 4, 4), torch.ones(2, 4, 4)
    for target, num_scores in ((masks, 2), (masks * 0, 1)):
        with pytest.warns(UserWarning, match="AUPRO is undefined"):
            scores = aupro(maps, target, reduction="none")
        assert scores.shape == (num_scores,)
        assert scores.isnan().all()


def assert_bounded(normal: Any, mask: Any, num_bins: int, region_size: int = 7) -> None:
    """Assert that the certain bounds hold the exact values and the estimates."""
    exact = results(normal, mask, region_size=region_size)
    for name, (binned, rounded) in results(normal, mask, num_bins, region_size).items():
        value, (low, high) = exact[name][0].value, binned.bounds
        assert low - EXACT <= value <= high + EXACT, name
        assert 0 <= low <= binned.value <= high <= 1 + EXACT, name
        assert bool(binned.warnings) == (high - low > 1e-3)
        assert rounded[0] <= value <= rounded[1], name
        assert rounded[0] <= np.float32(value) <= rounded[1], name


SPECIAL = [-math.inf, -3e38, -1.0, -1e-40, -0.0, 0.0, 1e-45, 0.5, 1.0, 1.0 + 2**-23, 255.0, 3.4e38, math.inf]
scores_of_few_bits = st.one_of(
    st.floats(width=32, allow_nan=False),
    st.integers(-3, 3).map(float),
    st.sampled_from(SPECIAL),
    st.floats(1, 2, width=16),
)


@settings(max_examples=settings.default.max_examples // 2)
@given(
    normal=st.lists(scores_of_few_bits, min_size=1, max_size=30),
    mask=st.lists(scores_of_few_bits, min_size=1, max_size=30),
    log_bins=st.integers(1, 16),
    region_size=st.integers(1, 30),
)
def test_bounds_are_certain(normal: list[float], mask: list[float], log_bins: int, region_size: int) -> None:
    """The exact value lies between the bounds, whatever the scores and the number of bins are."""
    scores = (torch.tensor(each, dtype=torch.float32) for each in (normal, mask))
    assert_bounded(*scores, 2**log_bins, region_size)


@pytest.mark.parametrize("num_bins", [2, 16, 2**10, 2**18])
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "float64"])
def test_bounds_of_many_scores_are_certain(kind: str, num_bins: int) -> None:
    """The exact value lies between the bounds, for each kind of scores, also where all lie in one bin."""
    assert_bounded(*make_scores(kind), num_bins)


def test_bounds_are_tight_where_bins_hold_one_score_each() -> None:
    """Scores that all lie in bins of their own are known exactly, with the threshold; in any precision."""
    order = torch.randperm(200, generator=torch.Generator().manual_seed(0)).float() + 1
    exact = results(order[:150], order[150:])
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        for name, (result, _) in results(order[:150].to(dtype), order[150:].to(dtype), 2**18).items():
            assert result.bounds == pytest.approx((exact[name][0].value,) * 2, abs=EXACT), name
            assert result.threshold == pytest.approx(exact[name][0].threshold, nan_ok=True)


def test_bounds_are_reached() -> None:
    """If all scores lie in one bin, scores can be found at either bound, so no narrower bounds would be certain."""
    low, high = 1 + torch.rand(40) / 100, 1.02 + torch.rand(25) / 100
    best = results(low, torch.full((25,), 1.02), region_size=25)
    worst = results(low + 0.1, high, region_size=25)
    for name, (result, _) in results(low, high, 16, region_size=25).items():
        assert result.bounds[1] == best[name][0].value == 1
        # the least sum of precisions is bounded by a logarithm, which is exact to the third decimal here
        assert result.bounds[0] == pytest.approx(worst[name][0].value, abs=1e-3 if name == "ap" else EXACT), name


def test_the_lowest_of_equally_good_thresholds_is_given() -> None:
    """Where two thresholds reach the highest F1, the threshold is the lower one."""
    # at 3 one of two mask pixels is found without an error, at 1 both with two errors: F1 is 2/3 either way
    result = results(torch.tensor([2.0, 2.0, 0.0]), torch.tensor([3.0, 1.0]))["f1"][0]
    assert (result.value, result.threshold) == (pytest.approx(2 / 3, abs=EXACT), 1.0)


def make_regions(random: np.random.Generator, size: tuple[int, int], number: int) -> NDArray[np.bool_]:
    """Make some rectangles, which may overlap."""
    regions = np.zeros((number, *size), dtype=bool)
    for region in regions:
        row, column = random.integers(0, [size[0] - 3, size[1] - 3])
        region[row : row + random.integers(1, 9), column : column + random.integers(1, 9)] = True
    return regions


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("fpr_limit", [0.05, 0.3, 1.0])
def test_au_spro_is_that_of_slow_loops(dtype: Any, fpr_limit: float) -> None:
    """At all thresholds, with ties, overlapping regions, several in an image, and areas larger than their regions."""
    random = np.random.default_rng(0)
    sizes = [(14, 17), (9, 9), (14, 17), (20, 11)]
    regions = [make_regions(random, size, number) for size, number in zip(sizes, (0, 1, 3, 5), strict=True)]
    maps = [
        (random.normal(size=size).round(1) + masks.any(0)).astype(dtype)
        for size, masks in zip(sizes, regions, strict=True)
    ]
    areas = [[int(area) for area in random.integers(1, 40, len(masks))] for masks in regions]
    expected = reference.au_spro(maps, [[*masks] for masks in regions], areas, fpr_limit)
    of_regions = functional.au_spro(maps, regions, areas, fpr_limit, reduction="none")
    assert isinstance(of_regions, np.ndarray)
    assert of_regions == pytest.approx(expected, abs=1e-6)
    tensors = [torch.from_numpy(each) for each in maps], [torch.from_numpy(each) for each in regions]
    assert float(functional.au_spro(*tensors, areas, fpr_limit)) == pytest.approx(np.mean(expected), abs=1e-6)


def test_au_spro_without_regions_is_undefined() -> None:
    """Without a region, or without a pixel outside of all, it is NaN with one warning."""
    for regions in (np.zeros((0, 4, 4), dtype=bool), np.ones((1, 4, 4), dtype=bool)):
        with pytest.warns(UserWarning, match=r"AU-sPRO is undefined \(NaN\)"):
            assert math.isnan(functional.au_spro([np.eye(4)], [regions], [[3] * len(regions)]))


@pytest.mark.parametrize(
    ("maps", "regions", "areas", "error", "fault"),
    [
        ([np.eye(4)], [], [[]], ValueError, "of as many images, but got 1, 0 and 1"),
        ([[1.0, 2.0]], [np.ones((1, 4, 4))], [[1]], TypeError, "lists of tensors or NumPy arrays"),
        ([np.eye(4, dtype=int)], [np.ones((1, 4, 4))], [[1]], TypeError, "floating point maps"),
        ([np.eye(4)], [np.ones((1, 4, 5))], [[1]], ValueError, r"\(4, 4\) and \(1, 4, 5\) for image 0"),
        ([np.full((4, 4), np.nan)], [np.ones((1, 4, 4))], [[1]], ValueError, "NaN in the map of image 0"),
        ([np.eye(4)], [np.full((1, 4, 4), 255)], [[1]], ValueError, "only 0 and 1"),
        ([np.eye(4)], [np.zeros((1, 4, 4))], [[1]], ValueError, "without empty ones"),
        ([np.eye(4)], [np.ones((1, 4, 4))], [[]], ValueError, "for each of 1 regions"),
        ([np.eye(4)], [np.ones((1, 4, 4))], [[0.5]], ValueError, "a whole number of pixels"),
    ],
)
def test_au_spro_refuses_what_does_not_fit(maps: Any, regions: Any, areas: Any, error: Any, fault: str) -> None:
    """Each error names what came, and of which image."""
    with pytest.raises(error, match=fault):
        functional.au_spro(maps, regions, areas)
