"""What must hold to the last bit: ends of a score, counts, the sampled grid, and what a small buffer says it misses."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
import pytest
import reference
import torch
from helpers import make_batch, make_image_list, score, updated
from hypothesis import given, settings
from hypothesis import strategies as st

from aupimo_torchmetrics import AUPIMO
from aupimo_torchmetrics.functional import aupimo

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # most bounds fall between the few thresholds

bounds_of_any_size = st.tuples(st.floats(1e-12, 1.0, exclude_max=True), st.floats(1e-12, 1.0, exclude_min=True)).filter(
    lambda pair: pair[0] < pair[1]
)


@settings(max_examples=settings.default.max_examples // 2)
@given(
    sizes=st.one_of(
        st.lists(st.tuples(st.integers(1, 40), st.integers(1, 30)), min_size=2, max_size=12),
        st.tuples(st.integers(1, 60), st.integers(1, 60)).flatmap(
            lambda size: st.integers(2, 40).map(lambda number: [size] * number)
        ),
    ),
    bounds=st.one_of(
        bounds_of_any_size,
        # the last ratio leaves no level between the bounds
        st.tuples(st.sampled_from([1e-6, 1e-4, 0.1, 0.5, 1.0]), st.sampled_from([3, 10, 1 + 2**-52])).map(
            lambda pair: (pair[0] / pair[1], pair[0])
        ),
    ),
    shared_fpr=st.sampled_from(["mean", "max"]),
    level=st.sampled_from([0.0, -3.5, 1e30, math.inf, -math.inf]),
)
def test_the_ends_of_a_score_are_exact(
    sizes: list[tuple[int, int]], bounds: tuple[float, float], shared_fpr: Any, level: float
) -> None:
    """A defect above all normal pixels scores 1, one below them 0, and constant maps score as chance, by `==`.

    Where images differ in size, their FPRs are rounded; the FPR of all pixels is 1 all the same.
    """
    masks = [torch.zeros(size, dtype=torch.bool) for size in sizes]
    masks[-1][: 1 + sizes[-1][0] // 3, : 1 + sizes[-1][1] // 2] = True
    generator = torch.Generator().manual_seed(0)
    noise, flat = [torch.rand(size, generator=generator) for size in sizes], [torch.full(size, level) for size in sizes]
    for maps, contrast in ((noise, 2), (noise, -2), (flat, 0)):
        metric = AUPIMO(fpr_bounds=bounds, shared_fpr=shared_fpr)
        pairs = zip(maps, masks, strict=True)
        metric.update([each.where(~mask, each + contrast) for each, mask in pairs], masks)
        result = metric.result()
        expected = {0: min(1.0, result.chance), -2: 0.0, 2: 1.0}[contrast]
        assert result.aupimos[-1] == result.mean == expected
        assert float(metric.compute()) == float(np.float32(expected))


def test_the_ends_are_exact_where_two_logarithms_differ() -> None:
    """For one bound in 25,000 torch's logarithm and Python's differ in the last bit; a score of 1 does not show it."""
    ratios = torch.rand(400_000, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 1e4 + 1
    differs = [log != math.log(ratio) for ratio, log in zip(ratios.tolist(), ratios.log().tolist(), strict=True)]
    maps, masks = make_batch("NNNAAA", 0, (10, 10))
    maps = maps.double() + 100 * masks  # so scores are in float64, too
    for ratio in ratios[torch.tensor(differs)].tolist():
        bounds = (2.0**-14, ratio * 2.0**-14)  # whose quotient is not rounded
        assert aupimo(maps, masks, None, bounds, reduction="none")[-3:].tolist() == [1.0] * 3


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("lowest", "highest", "num_levels", "num_thresholds"),
    [
        *((0, 1, 2, 2), (0, 1, 256, 256), (0, 1, 11, 11), (-3, 3, 61, 11), (-1, 2, 31, 256)),
        *((-3, 3, 7, 1000), (0, 1, 101, 1001), (0, 255, 256, 3), (0.1, 0.7, 13, 25)),
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
        by_loops, thresholds, _ = reference.sampled_aupimo([*maps], [*masks], (0.01, 0.3), num_thresholds)
        expected = by_loops[3]
        assert float(aupimo(maps, masks, num_thresholds, (0.01, 0.3))) == pytest.approx(expected, abs=1e-7)
        if dtype is np.float32:  # the precision of the metric
            metric = AUPIMO(num_thresholds, (0.01, 0.3))
            metric.update(torch.from_numpy(maps), torch.from_numpy(masks))
            assert metric.result().threshold_bounds == thresholds
            assert metric.result().mean == pytest.approx(expected, abs=1e-14)


@given(
    seed=st.integers(0, 10**6),
    decimals=st.sampled_from([0, 1, None]),
    highest=st.sampled_from([0.5, math.inf, None]),  # scores are clamped there, or one is an outlier
    num_kept=st.integers(1, 60),
    num_thresholds=st.sampled_from([None, 2, 5, 20, 300]),
    bounds=st.sampled_from([(0.01, 0.05), (0.01, 0.1), (0.05, 0.3)]),
    shared_fpr=st.sampled_from(["mean", "max"]),
)
def test_any_floor_gives_the_score_or_a_bound(  # noqa: PLR0917  drawn by name
    seed: int,
    decimals: int | None,
    highest: float | None,
    num_kept: int,
    num_thresholds: int | None,
    bounds: tuple[float, float],
    shared_fpr: Any,
) -> None:
    """Wherever the floor lies, no score is too high, none lower than said, and no threshold is a wrong one."""
    maps, masks = make_image_list(seed, decimals=decimals)
    if highest is None:
        maps[0][0, 0] = 1000.0
    else:
        maps = [each.clamp(max=highest) for each in maps]
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
    if not any(map(math.isnan, result.threshold_bounds)):
        assert result.num_points == exact.num_points
    for fpr in (bounds[0] / 3, bounds[0], math.sqrt(bounds[0] * bounds[1]), bounds[1]):
        threshold = result.threshold_at(fpr)
        assert math.isnan(threshold) or threshold == exact.threshold_at(fpr)
    assert result.warnings or not any(map(math.isnan, result.threshold_bounds))


@pytest.mark.slow
def test_counts_are_exact_beyond_two_to_the_24() -> None:
    """Beyond what float32 can count every pixel of a normal image and of a mask counts."""
    num_pixels = 125 * 134_219  # 2**24 + 159, which is odd: float32 has no such number
    normal, defect = torch.zeros(2, 1, 1, num_pixels)
    normal[..., : 2**17] = torch.arange(2**17) / 2**17  # more than the buffer holds
    defect[..., : 2**24 + 1] = 2.0
    metric = AUPIMO(fpr_bounds=(0.5 / num_pixels, 1 / num_pixels))
    metric.update(normal, torch.zeros_like(normal, dtype=torch.bool))
    metric.update(defect, torch.ones_like(defect, dtype=torch.bool))
    result = metric.result()
    assert "cannot be resolved" in result.warnings[0]
    assert result.aupimos[1] == (2**24 + 1) / num_pixels
    assert int(torch.cat(metric.aupimo_num_pixels).sum()) == 2 * num_pixels


def test_counts_are_exact_beyond_two_to_the_31() -> None:
    """A stream longer than int32 can count scores as its definition says, computed by hand."""
    num_images, side = 2**11 + 2, 2**10
    maps = torch.arange(2.0 * side**2).view(2, side, side) / 2**22  # below 0.5, all distinct in one batch
    masks = torch.zeros(2, side, side, dtype=torch.bool)
    maps[0, 0, 0] = maps[1, 5, 7:9] = 1.0
    metric = updated(AUPIMO(fpr_bounds=(1e-7, 1e-5)), [(maps, masks)] * (num_images // 2))
    assert num_images * side**2 > 2**31
    defect, mask = torch.full((1, 1, 4), 1.0), torch.ones(1, 1, 4, dtype=torch.bool)
    defect[..., 0] = 2.0
    metric.update(defect, mask)
    result = metric.result()
    assert "cannot be resolved" in result.warnings[0]
    # three of 2**21 pixels have the score 1: the pixels of that score are recalled along a line up to this FPR
    tie = 3 / 2**21
    low, high = 1e-7, 1e-5
    at_one = (math.log(high / tie) + (tie - low) / tie) / math.log(high / low)
    assert float(result.aupimos[-1]) == pytest.approx((1 + 3 * at_one) / 4, abs=1e-12)  # logs of exact counts
    assert len(result.aupimos) == num_images + 1
