"""What must hold to the last bit: the ends of a score, the sampled grid, and what a small buffer says it misses."""

from __future__ import annotations

import math
import re
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from helpers import make_image_list, score, updated
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from aupimo_torchmetrics import AUPIMO
from aupimo_torchmetrics.functional import aupimo, aupro

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # most bounds fall between the few thresholds

bounds_of_any_size = st.tuples(st.floats(1e-12, 1.0, exclude_max=True), st.floats(1e-12, 1.0, exclude_min=True)).filter(
    lambda pair: pair[0] < pair[1]
)


def make_scene(num_normal: int, size: tuple[int, int], seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Normal images and three with a defect, all of random scores in [0, 1)."""
    masks = torch.zeros(num_normal + 3, *size, dtype=torch.bool)
    masks[-1, : size[0] // 3 + 1, : size[1] // 2 + 1] = masks[-2, 0, 0] = masks[-3, -1] = True
    return torch.rand(masks.shape, generator=torch.Generator().manual_seed(seed)), masks


@given(
    bounds=bounds_of_any_size,
    num_normal=st.integers(1, 40),
    size=st.tuples(st.integers(1, 60), st.integers(1, 60)),
    shared_fpr=st.sampled_from(["mean", "max"]),
    seed=st.integers(0, 99),
)
def test_the_ends_of_a_score_are_exact(
    bounds: tuple[float, float], num_normal: int, size: tuple[int, int], shared_fpr: Any, seed: int
) -> None:
    """A defect above all normal pixels scores 1, one below them 0, and constant maps score as chance, by `==`."""
    maps, masks = make_scene(num_normal, size, seed)
    for preds, expected in ((maps + 2 * masks, 1.0), (maps - 2 * masks, 0.0), (maps * 0, None)):
        metric = AUPIMO(fpr_bounds=bounds, shared_fpr=shared_fpr)
        metric.update(preds, masks)
        result = metric.result()
        score = min(1.0, result.chance) if expected is None else expected
        assert result.aupimos[-3:].tolist() == [score] * 3
        assert result.mean == score
        assert float(metric.compute()) == float(np.float32(score))


def test_the_ends_of_a_score_are_exact_for_images_of_any_sizes() -> None:
    """Images of many sizes, whose FPRs are rounded, leave the ends exact."""
    generator = torch.Generator().manual_seed(0)
    for lower in np.geomspace(1e-7, 0.3, 40):
        maps = [torch.rand(7 + 3 * i, 50 - i, generator=generator) for i in range(20)]
        masks = [torch.zeros(each.shape, dtype=torch.bool) for each in maps]
        for mask in masks[15:]:
            mask[:3, :7] = True
        preds = [each + 2 * mask for each, mask in zip(maps, masks, strict=True)]
        for sign, expected in ((1, 1.0), (-1, 0.0)):
            scores = aupimo([sign * each for each in preds], masks, None, (lower, 3 * lower), reduction="none")
            assert scores[15:].tolist() == [expected] * 5


@given(
    widths=st.lists(st.integers(1, 30), min_size=2, max_size=8),
    upper=st.sampled_from([1e-4, 0.1, 0.5, 1.0]),
    shared_fpr=st.sampled_from(["mean", "max"]),
)
def test_the_ends_are_exact_whatever_the_sizes(widths: list[int], upper: float, shared_fpr: Any) -> None:
    """Where images differ in size, their FPRs are rounded; the FPR of all pixels is 1 all the same."""
    masks = [torch.zeros(1, width, dtype=torch.bool) for width in widths]
    masks[-1][:] = True
    for contrast in (0, -1, 1):
        metric = AUPIMO(fpr_bounds=(upper / 10, upper), shared_fpr=shared_fpr)
        metric.update([contrast * mask.float() for mask in masks], masks)
        result = metric.result()
        assert result.mean == {0: min(1.0, result.chance), -1: 0.0, 1: 1.0}[contrast]


def test_bounds_of_which_none_can_be_resolved() -> None:
    """Bounds so close to each other that rounding moves all levels out of them give a score and a warning."""
    masks = [torch.zeros(size, dtype=torch.bool) for size in ((7, 7), (3, 3), (5, 5), (2, 2))]
    masks[-1][:] = True
    metric = AUPIMO(fpr_bounds=(float(np.nextafter(1, 0)), 1.0))
    metric.update([mask * 0.0 for mask in masks], masks)
    assert 0 <= metric.result().mean <= 1


def test_the_ends_are_exact_where_two_logarithms_differ() -> None:
    """For one bound in 25,000 torch's logarithm and Python's differ in the last bit; a score of 1 does not show it."""
    ratios = torch.rand(400_000, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 1e4 + 1
    differs = [log != math.log(ratio) for ratio, log in zip(ratios.tolist(), ratios.log().tolist(), strict=True)]
    maps, masks = make_scene(3, (10, 10), 0)
    maps = maps.double() + 2 * masks  # so scores are in float64, too
    for ratio in ratios[torch.tensor(differs)].tolist():
        bounds = (2.0**-14, ratio * 2.0**-14)  # whose quotient is not rounded
        assert aupimo(maps, masks, None, bounds, reduction="none")[-3:].tolist() == [1.0] * 3


def test_regions_that_are_found_score_exactly_one() -> None:
    """AUPRO has the same ends."""
    pytest.importorskip("scipy")
    maps, masks = make_scene(5, (20, 30), 0)
    assert aupro(maps + 2 * masks, masks, 0.3).item() == 1
    assert aupro(maps - 2 * masks, masks, 0.3).item() == 0


def sampled_by_definition(
    maps: NDArray[Any], masks: NDArray[Any], bounds: tuple[float, float], num_thresholds: int
) -> tuple[float, tuple[float, float]]:
    """The official protocol with NumPy: a grid in float64, cast to the dtype of the maps, and one comparison each."""
    normal = maps[~masks.any((1, 2))]
    grid = np.linspace(float(normal.min()), float(normal.max()), num_thresholds).astype(maps.dtype)
    fpr = np.array([[(scores >= threshold).mean() for scores in normal] for threshold in grid])
    fpr = np.cumsum(fpr, axis=1)[:, -1] / len(normal)
    first, last = (int(np.abs(fpr - bound).argmin()) for bound in (bounds[1], bounds[0]))
    scores = []
    for anomaly_map, mask in zip(maps, masks, strict=True):
        if mask.any():
            tprs = np.array([(anomaly_map[mask] >= threshold).mean() for threshold in grid[first : last + 1]])
            levels = fpr[first : last + 1]
            tprs, levels = tprs[levels > 0], levels[levels > 0]
            area = sum((tprs[1:] + tprs[:-1]) / 2 * np.log(levels[:-1] / levels[1:])) if len(levels) else 0.0
            scores.append(min(1.0, area / math.log(bounds[1] / bounds[0])))
    return float(np.mean(scores)), (float(grid[first]), float(grid[last]))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("lowest", "highest", "num_levels", "num_thresholds"),
    [
        (0, 1, 2, 2),
        (0, 1, 256, 256),
        (0, 1, 11, 11),
        (-3, 3, 61, 11),
        (-1, 2, 31, 256),
        (-3, 3, 7, 1000),
        (0, 1, 101, 1001),
        (0, 255, 256, 3),
        (0.1, 0.7, 13, 25),
    ],
)
def test_the_sampled_grid_is_numpys_on_maps_of_few_levels(
    lowest: float, highest: float, num_levels: int, num_thresholds: int, dtype: Any
) -> None:
    """Where thresholds fall on tied scores, thresholds and scores are those that NumPy's grid gives."""
    generator = np.random.default_rng(num_thresholds)
    levels = np.round(np.linspace(lowest, highest, num_levels), 12)
    for _ in range(12):
        maps = generator.choice(levels, p=generator.dirichlet(np.full(num_levels, 0.3)), size=(4, 30, 30))
        maps[0, 0, :2] = lowest, highest
        masks = np.zeros(maps.shape, dtype=bool)
        masks[3, :10] = True
        maps[3, :10] = generator.choice(levels, size=(10, 30))
        maps = maps.astype(dtype)
        expected, thresholds = sampled_by_definition(maps, masks, (0.01, 0.3), num_thresholds)
        assert float(aupimo(maps, masks, num_thresholds, (0.01, 0.3))) == pytest.approx(expected, abs=1e-7)
        if dtype is np.float32:  # the precision of the metric
            metric = AUPIMO(num_thresholds, (0.01, 0.3))
            metric.update(torch.from_numpy(maps), torch.from_numpy(masks))
            assert metric.result().threshold_bounds == thresholds
            assert metric.result().mean == pytest.approx(expected, abs=1e-14)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_sampled_grid_of_the_paper_is_numpys(dtype: Any) -> None:
    """With 300,000 thresholds on maps of 1,000 levels, scores are those of the grid that NumPy gives."""
    generator = np.random.default_rng(0)
    maps = (np.round(generator.normal(size=(4, 40, 40)), 2) / 7).astype(dtype)
    masks = np.zeros(maps.shape, dtype=bool)
    masks[3, :8] = True
    maps[3, :8] += dtype(0.2)
    normal = maps[:3]
    grid = np.linspace(float(normal.min()), float(normal.max()), 300_000).astype(dtype)
    ranks = np.stack([1 - np.searchsorted(np.sort(each.ravel()), grid) / each.size for each in normal])
    fpr = np.cumsum(ranks, axis=0)[-1] / 3
    first, last = (int(np.abs(fpr - bound).argmin()) for bound in (0.1, 0.01))
    used = slice(first, last + 1)
    tprs = 1 - np.searchsorted(np.sort(maps[3][masks[3]]), grid[used]) / masks[3].sum()
    expected = np.sum((tprs[1:] + tprs[:-1]) / 2 * np.log(fpr[used][:-1] / fpr[used][1:])) / math.log(10)
    score = aupimo(maps, masks, 300_000, (0.01, 0.1))
    assert float(score) == pytest.approx(expected, abs=1e-7 if dtype is np.float32 else 1e-12)


def saturated_scene(seed: int, how: str) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Batches of normal images of which the first are the worst, with tied scores, and one with defects."""
    generator = torch.Generator().manual_seed(seed)
    maps = torch.randn(124, 20, 25, generator=generator)
    masks = torch.zeros(maps.shape, dtype=torch.bool)
    masks[122:, 3:9, 4:14] = True
    maps[:2] += 6  # all the highest normal scores come first
    maps += 8 * masks * torch.rand(maps.shape, generator=generator)
    if how == "rounded":
        maps = maps.mul(2).round().div(2)
    elif how == "clamped":
        maps = maps.clamp(max=float(maps[:122].flatten().kthvalue(int(0.99 * 122 * 500)).values))
    elif how == "outlier":
        maps[0, 0, 0] = 1000.0
    return list(zip(maps.split(2), masks.split(2), strict=True))


@pytest.mark.parametrize("how", ["continuous", "rounded", "clamped", "outlier"])
@pytest.mark.parametrize("num_thresholds", [2, 50, 1000])
@pytest.mark.parametrize("shared_fpr", ["mean", "max"])
def test_sampled_scores_of_a_small_buffer_are_known_or_said_not_to_be(
    how: str, num_thresholds: int, shared_fpr: Any
) -> None:
    """With any buffer a sampled score is the protocol's, or a bound whose error is not understated; thresholds too."""
    batches = saturated_scene(0, how)
    for bounds in ((1e-3, 1e-2), (2e-3, 2e-2)):
        exact = updated(AUPIMO(num_thresholds, bounds, shared_fpr=shared_fpr, normal_buffer=None), batches).result()
        for normal_buffer in (1, 30, 400):
            metric = AUPIMO(num_thresholds, bounds, shared_fpr=shared_fpr, normal_buffer=normal_buffer)
            result = updated(metric, batches).result()
            stated = re.findall(r"may be up to (\S+) larger", " ".join(result.warnings))
            missing = float(stated[0]) if stated else 0.0
            gap = (exact.aupimos - result.aupimos)[122:]
            assert float(gap.min()) >= -1e-12
            assert float(gap.max()) <= missing + 1e-12
            for known, true in zip(result.threshold_bounds, exact.threshold_bounds, strict=True):
                assert math.isnan(known) or known == true
            if any(map(math.isnan, result.threshold_bounds)):
                assert result.num_points is None or not math.isnan(result.threshold_bounds[0])
                assert result.warnings
            else:
                assert result.num_points == exact.num_points


def test_a_small_buffer_does_lose_scores_and_thresholds() -> None:
    """The test above does meet scores that are too low, and thresholds that are not known."""
    gaps, num_unknown = [], 0
    for seed in range(4):
        for how in ("continuous", "rounded", "clamped"):
            batches = saturated_scene(seed, how)
            exact = updated(AUPIMO(50, (1e-3, 1e-2), normal_buffer=None), batches).result()
            result = updated(AUPIMO(50, (1e-3, 1e-2), normal_buffer=1), batches).result()
            gaps.append(float((exact.aupimos - result.aupimos)[122:].max()))
            num_unknown += math.isnan(result.threshold_bounds[0])
    assert max(gaps) > 0.01
    assert num_unknown > 0


@pytest.mark.parametrize(("how", "is_known"), [("max", True), ("mean", False)])
def test_thresholds_on_saturated_maps(how: Any, is_known: bool) -> None:
    """Where a quarter of the normal pixels share the highest score, thresholds are the protocol's, or NaN and said."""
    maps = torch.rand(8, 300, 300, generator=torch.Generator().manual_seed(0)) * 0.9
    masks = torch.zeros(maps.shape, dtype=torch.bool)
    masks[7, :20, :20] = True
    if how == "max":
        maps[0] = 1.0
    else:
        maps[:7, :80] = 1.0
    batches = list(zip(maps.split(2), masks.split(2), strict=True))
    small = updated(AUPIMO(1000, shared_fpr=how), batches).result()
    full = updated(AUPIMO(1000, shared_fpr=how, normal_buffer=None), batches).result()
    assert small.mean == full.mean
    assert not math.isnan(full.threshold_bounds[0])
    if is_known:
        assert small.threshold_bounds == full.threshold_bounds
        assert small.num_points == full.num_points
    else:
        assert math.isnan(small.threshold_bounds[0])
        assert math.isnan(small.threshold_at(1e-4))
        assert small.num_points is None
        assert any("`normal_buffer=None`" in text for text in small.warnings)


def test_warnings_are_given_once() -> None:
    """A computed result does not warn again."""
    metric = AUPIMO()
    metric.update(*make_scene(2, (5, 5), 0))
    metric.compute()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert metric.result().warnings


@given(
    seed=st.integers(0, 10**6),
    decimals=st.sampled_from([0, 1, None]),
    num_kept=st.integers(1, 60),
    num_thresholds=st.sampled_from([None, 2, 5, 20, 300]),
    bounds=st.sampled_from([(0.01, 0.05), (0.01, 0.1), (0.05, 0.3)]),
    shared_fpr=st.sampled_from(["mean", "max"]),
)
def test_any_floor_gives_the_score_or_a_bound(  # noqa: PLR0917  drawn by name
    seed: int,
    decimals: int | None,
    num_kept: int,
    num_thresholds: int | None,
    bounds: tuple[float, float],
    shared_fpr: Any,
) -> None:
    """Wherever the floor lies, no score is too high, none lower than said, and no threshold is a wrong one."""
    maps, masks = make_image_list(seed, decimals=decimals)
    normal = torch.cat([each.flatten() for each, mask in zip(maps, masks, strict=True) if not mask.any()])
    floor = float(normal.sort(descending=True).values[num_kept - 1])
    exact = score(maps, masks, bounds, num_thresholds, shared_fpr=shared_fpr)
    result = score(maps, masks, bounds, num_thresholds, shared_fpr=shared_fpr, floor=floor)
    stated = re.findall(r"may be up to (\S+) larger", " ".join(result.warnings))
    gap = (exact.aupimos - result.aupimos)[~exact.aupimos.isnan()]
    assert float(gap.min()) >= -1e-12
    assert float(gap.max()) <= (float(stated[0]) if stated else 0.0) + 1e-12
    for known, true in zip(result.threshold_bounds, exact.threshold_bounds, strict=True):
        assert math.isnan(known) or known == true
    for fpr in (bounds[0] / 3, bounds[0], math.sqrt(bounds[0] * bounds[1]), bounds[1]):
        threshold = result.threshold_at(fpr)
        assert math.isnan(threshold) or threshold == exact.threshold_at(fpr)
    assert result.warnings or not any(map(math.isnan, result.threshold_bounds))
