"""The engine against the slow reference: scores, thresholds, curves and what one pixel contributes."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import reference
import torch
from helpers import as_arrays, assert_close, assert_same, make_image_list, make_images, score
from torch import Tensor

from aupimo_torchmetrics.functional import pimo

# The data are small on purpose, so most bounds fall between thresholds; the warnings have tests of their own.
pytestmark = [
    pytest.mark.filterwarnings("ignore:AUPIMO is uncertain:UserWarning"),
    pytest.mark.filterwarnings("ignore:AUPIMO may be inaccurate:UserWarning"),
]

SUM_TOLERANCE = 1e-12
"""Sums of a few thousand float64 terms of at most 1, in another order than the reference adds them."""
NUM_CURVE_LEVELS = 1000

Images = tuple[list[Tensor], list[Tensor]]
Case = Callable[[], Images]


def with_infinite_scores() -> Images:
    """Images with both infinities in normal maps, in masks and around them."""
    maps, masks = make_image_list(4)
    for number, anomaly_map in enumerate(maps):
        anomaly_map.view(-1)[number :: 11 + number] = math.inf
        anomaly_map.view(-1)[number + 1 :: 13] = -math.inf
        anomaly_map[masks[number].nonzero()[0].tolist()[0] if masks[number].any() else 0, 0] = math.inf
    maps[1][masks[1]] = torch.tensor([math.inf, -math.inf, 0.5]).double().repeat(9)[: int(masks[1].sum())]
    return maps, masks


def with_extreme_masks() -> Images:
    """Anomalous images of which all pixels are in the mask, or a single one, on a level with a normal one or not."""
    maps, masks = make_image_list(5, anomalous=(1, 3, 4))
    masks[1][:] = True
    for number in (3, 4):
        masks[number][:] = False
        masks[number][2, 3] = True
    maps[3][2, 3] = maps[0].max()
    return maps, masks


def with_one_normal_pixel() -> Images:
    """A single normal image of a single pixel, on a level with some of the mask pixels."""
    maps, masks = make_image_list(7, sizes=[(9, 9), (1, 1), (6, 4)], anomalous=(0, 2), decimals=0)
    maps[1][0, 0] = 1.0
    return maps, masks


def with_equal_normal_pixels() -> Images:
    """Constant normal images of two levels, and a mask with scores below, between, above and on them."""
    maps, masks = make_image_list(8, sizes=[(8, 8), (4, 9), (8, 8)], anomalous=(2,), decimals=0)
    maps[0][:] = 1.0
    maps[1][:] = 2.0
    return maps, masks


CASES: dict[str, Case] = {
    "continuous": lambda: make_image_list(0, [(12, 10)] * 5),
    "continuous, mixed sizes": lambda: make_image_list(1),
    "ties": lambda: make_image_list(2, [(12, 10)] * 5, decimals=1),
    "few levels, mixed sizes": lambda: make_image_list(3, decimals=0),
    "infinite scores": with_infinite_scores,
    "masks of one pixel and of all": with_extreme_masks,
    "one normal pixel": with_one_normal_pixel,
    "constant normal images": with_equal_normal_pixels,
}
FINITE_CASES = {name: case for name, case in CASES.items() if name != "infinite scores"}
# Between thresholds, on thresholds, within the highest tie, below one pixel, up to the end of the curve, and all of it.
BOUNDS = [(0.01, 0.3), (0.05, 0.1), (0.02, 0.021), (1e-5, 1e-4), (0.2, 1.0), (1e-4, 1.0)]

all_cases = pytest.mark.parametrize("images", CASES.values(), ids=CASES.keys())
finite_cases = pytest.mark.parametrize("images", FINITE_CASES.values(), ids=FINITE_CASES.keys())
all_bounds = pytest.mark.parametrize("fpr_bounds", BOUNDS)
mean_and_max = pytest.mark.parametrize("shared_fpr", ["mean", "max"])


def in_float32(images: Case) -> tuple[Images, Any]:
    """Maps in float32 with their masks, and the same as arrays."""
    maps, masks = images()
    maps = [each.float() for each in maps]
    return (maps, masks), (as_arrays(maps), as_arrays(masks))


@mean_and_max
@all_bounds
@all_cases
def test_exact_scores_equal_integrals_of_the_curve(images: Case, fpr_bounds: Any, shared_fpr: str) -> None:
    """Exact scores are the area under the curve, whatever the scores, the sizes and the bounds."""
    maps, masks = images()
    expected = reference.aupimo(as_arrays(maps), as_arrays(masks), fpr_bounds, shared_fpr)
    assert_close(score(maps, masks, fpr_bounds, shared_fpr=shared_fpr).aupimos, expected, SUM_TOLERANCE)


def test_scores_of_hand_computed_examples() -> None:
    """By the mean and by the maximum, a score is what pencil and paper give."""
    maps = torch.tensor([[[1.0, 2.0], [3.0, 4.0]], [[3.0, 9.0], [0.0, 0.0]]])
    masks = torch.tensor([[[0, 0], [0, 0]], [[1, 1], [0, 0]]])
    # Four normal pixels, and two in a mask. The pixel of score 9 is recalled at every FPR. The pixel of score 3 is
    # recalled at no FPR up to 1/4, at all from 1/2 on, and between them, for a normal pixel has this score too, by the
    # line 4 z - 1, whose integral over dz / z is 1 - log 2. The range is log 4.
    second_pixel = (math.log(1 / 0.5) + 1 - math.log(2)) / math.log(4)
    expected = (1 + second_pixel) / 2
    assert score(maps, masks, (0.25, 1.0)).mean == pytest.approx(expected, abs=SUM_TOLERANCE)
    ragged = [torch.tensor([[8.0, 0.0]]), torch.tensor([[9.0, 7.0, 6.0, 0.0]]), torch.tensor([[8.5, 7.0, 6.5]])]
    # From 9 down the largest share is 1/4, from 8 on 1/2, where it stays at 7, and from 6 on 3/4. So the pixel of score
    # 8.5 is recalled from 1/4 on, that of score 7 from 1/2 on, and that of score 6.5 too. The range is log 4.
    result = score(ragged, [torch.zeros(1, 2), torch.zeros(1, 4), torch.ones(1, 3)], (0.25, 1.0), shared_fpr="max")
    assert result.mean == pytest.approx((1 + 0.5 + 0.5) / 3, abs=SUM_TOLERANCE)
    assert [result.threshold_at(fpr) for fpr in (0.25, 0.5, 0.75, 1.0)] == [9.0, 7.0, 6.0, 0.0]


@mean_and_max
@pytest.mark.parametrize(
    ("num_thresholds", "fpr_bounds"), [(2, (0.05, 0.1)), (7, (0.2, 1.0)), (100, (0.01, 0.3)), (100, (1e-5, 1e-4))]
)
@finite_cases
def test_sampled_scores_are_those_of_the_paper(
    images: Case, fpr_bounds: tuple[float, float], num_thresholds: int, shared_fpr: str
) -> None:
    """Sampled scores, thresholds and the number of points are those of a trapezoid rule over a grid of thresholds."""
    tensors, arrays = in_float32(images)
    expected, threshold_bounds, num_points = reference.sampled_aupimo(*arrays, fpr_bounds, num_thresholds, shared_fpr)
    actual = score(*tensors, fpr_bounds, num_thresholds, shared_fpr=shared_fpr)
    assert_close(actual.aupimos, expected, SUM_TOLERANCE)
    assert actual.threshold_bounds == threshold_bounds
    assert actual.num_points == num_points


@mean_and_max
@finite_cases
def test_sampled_threshold_at_is_the_nearest_of_the_grid(images: Case, shared_fpr: str) -> None:
    """With sampled thresholds the threshold at an FPR is the first whose shared FPR is nearest to it."""
    tensors, arrays = in_float32(images)
    grid = reference.sampled_thresholds(*arrays, 50)
    fpr = [reference.shared_fpr(*arrays, threshold, shared_fpr) for threshold in grid]
    result = score(*tensors, (0.01, 0.5), 50, shared_fpr=shared_fpr)
    for wanted in (1e-6, 0.013, 0.1, 0.24, 0.5):
        assert result.threshold_at(wanted) == grid[reference.sampled_range(fpr, (wanted, 1.0))[1]]


@mean_and_max
@all_cases
def test_threshold_at_is_the_smallest_normal_score_within_the_fpr(images: Case, shared_fpr: str) -> None:
    """The threshold at an FPR is the smallest normal score that keeps it, or the next float above all of them.

    Where too many normal scores are +inf there is none: NaN, and never one with a higher FPR.
    """
    tensors, arrays = in_float32(images)
    result = score(*tensors, (0.01, 1.0), shared_fpr=shared_fpr)
    for fpr in (1e-6, *np.geomspace(0.0101, 0.9999, 20).tolist()):  # none is reached by a score
        threshold = float(reference.threshold_at(*arrays, fpr, shared_fpr))
        assert_same(result.threshold_at(fpr), threshold)
        point = result.operating_point(fpr=fpr)
        expected = math.nan if math.isnan(threshold) else reference.shared_fpr(*arrays, threshold, shared_fpr)
        assert_same(point.shared_fpr, expected, SUM_TOLERANCE)
        assert math.isnan(point.share_of_normal_images_with_alarm) == math.isnan(threshold)
    assert_same(result.threshold_bounds, (result.threshold_at(1.0), result.threshold_at(0.01)))


def test_threshold_at_an_fpr_that_scores_reach_is_the_smallest_of_them() -> None:
    """An FPR of exactly k of P normal pixels is met by the k-th highest, and by the lowest at which a maximum stays."""
    maps, masks = make_images(0, 4, size=(10, 10), anomalous=(1,))
    arrays = as_arrays(maps), as_arrays(masks)
    falling = maps[[0, 2, 3]].flatten().sort(descending=True).values
    result = score(maps, masks, (0.01, 1.0))
    for k in (1, 2, 3, 7, 60, 199, 299, 300):
        assert result.threshold_at(k / 300) == float(falling[k - 1])
    for k in range(1, 100, 3):  # at the upper bound too
        result = score(maps, masks, (0.001, k / 100), shared_fpr="max")
        assert result.threshold_at(k / 100) == reference.threshold_at(*arrays, k / 100, "max")
        assert result.threshold_at(1 / 100) == reference.threshold_at(*arrays, 1 / 100, "max")


@mean_and_max
@finite_cases
@pytest.mark.parametrize("num_thresholds", [2, 33, None])
def test_curves_equal_counts_at_each_threshold(images: Case, num_thresholds: Any, shared_fpr: str) -> None:
    """A curve's FPR and TPRs are the shares of pixels at or above each of its thresholds, those of the protocol."""
    maps, masks = images()
    curves = pimo(maps, masks, num_thresholds, shared_fpr=shared_fpr)
    arrays = as_arrays(maps), as_arrays(masks)
    if num_thresholds is not None:
        assert curves.thresholds.tolist() == reference.sampled_thresholds(*arrays, num_thresholds).tolist()
    some = range(0, len(curves.thresholds), 1 if num_thresholds else 37)
    expected_fpr = [reference.shared_fpr(*arrays, float(curves.thresholds[k]), shared_fpr) for k in some]
    assert_close(curves.shared_fpr[list(some)], expected_fpr, SUM_TOLERANCE)
    for number, (anomaly_map, mask) in enumerate(zip(*arrays, strict=True)):
        tprs = curves.per_image_tprs[number]
        if mask.any():
            expected = [reference.tpr(anomaly_map, mask, float(curves.thresholds[k])) for k in some]
            assert_close(tprs[list(some)], expected, 0.0)  # both are quotients of the same two counts
        else:
            assert bool(tprs.isnan().all())


@mean_and_max
@all_cases
def test_curves_without_a_number_of_thresholds_are_even_in_log_fpr(images: Case, shared_fpr: str) -> None:
    """Each threshold of a default curve is the one at its FPR, evenly in log from 1 down to that of one pixel."""
    maps, masks = images()
    arrays = as_arrays(maps), as_arrays(masks)
    normal = [each for each, mask in zip(maps, masks, strict=True) if not mask.any()]
    num_pixels = max(each.numel() for each in normal) * (1 if shared_fpr == "max" else len(normal))
    levels = np.geomspace(1.0, 1 / num_pixels, NUM_CURVE_LEVELS)

    def highest_at(fpr: float) -> float:
        threshold = reference.threshold_at(*arrays, fpr, shared_fpr)
        return math.inf if math.isnan(threshold) else threshold  # a curve ends at the highest normal score

    curves = pimo(maps, masks, shared_fpr=shared_fpr)
    assert bool((curves.thresholds[1:] >= curves.thresholds[:-1]).all())
    # A level may coincide with an FPR, whose rounding then decides between two neighbours: the ends always do.
    for k in range(1, NUM_CURVE_LEVELS - 1, 83):
        nearby = [levels[k] * (1 + sign * SUM_TOLERANCE) for sign in (-1, 1)]
        assert float(curves.thresholds[k]) in {highest_at(fpr) for fpr in nearby}
    assert float(curves.thresholds[0]) == min(float(each.min()) for each in normal)
    assert float(curves.thresholds[-1]) == highest_at(levels[-1] * (1 + SUM_TOLERANCE))


@mean_and_max
def test_curves_end_at_the_highest_normal_score_whatever_the_number_of_pixels(shared_fpr: str) -> None:
    """The last threshold of a default curve is one that a normal pixel reaches, however the lowest FPR is rounded."""
    for num_pixels in range(2, 120, 3):
        maps = torch.arange(2.0 * num_pixels).view(2, 1, num_pixels)
        masks = torch.tensor([False, True])[:, None, None].expand_as(maps)
        curves = pimo(maps, masks, shared_fpr=shared_fpr)
        assert float(curves.thresholds[-1]) == num_pixels - 1
        assert float(curves.thresholds[0]) == 0.0


@mean_and_max
@pytest.mark.parametrize("num_thresholds", [None, 60])
@finite_cases
def test_pixel_aupimo_averages_to_the_score(images: Case, num_thresholds: int | None, shared_fpr: str) -> None:
    """The mean of the pixels' contributions over a mask is the score, and a higher score never contributes less."""
    maps, masks = images()
    result = score(maps, masks, (0.01, 0.3), num_thresholds, shared_fpr=shared_fpr)
    for number in torch.nonzero(result.image_classes).squeeze(1).tolist():
        pixels = result.pixel_aupimo(maps[number])[masks[number]]
        is_cut = num_thresholds is not None and float(pixels.max()) == 1  # a sampled table may pass 1 a little
        assert is_cut or float(pixels.mean()) == pytest.approx(float(result.aupimos[number]), abs=SUM_TOLERANCE)
    scores = torch.cat([each.flatten() for each in maps]).unique()
    between = (scores[1:] + scores[:-1]) / 2
    pixels = result.pixel_aupimo(torch.cat([scores, between, scores.new_tensor([-1e9, 1e9])]).sort().values)
    assert float(pixels.diff().min()) >= -SUM_TOLERANCE
    assert 0.0 == float(pixels.min()) <= float(pixels.max()) <= 1.0


def test_pixel_aupimo_rounds_a_map_as_the_scored_maps_were_rounded() -> None:
    """A float64 map is compared in float32 with the scores of a float32 result: what was tied there is tied here."""
    maps, masks = make_images(2, decimals=1)
    maps = maps.mul(10).round().div(10)  # tenths in float64, which float32 does not hold
    result = score(maps, masks, (0.01, 0.3))
    for number in (1, 3):
        mean = result.pixel_aupimo(maps[number])[masks[number]].mean()
        assert float(mean) == pytest.approx(float(result.aupimos[number]), abs=SUM_TOLERANCE)


def test_pixel_aupimo_has_the_form_of_the_map() -> None:
    """Contributions come in the shape of the map, in float64 for float64 and else in float32, without gradient."""
    maps, masks = make_images(0)
    result = score(maps, masks, (0.01, 0.3))
    for shape in ((), (0,), (7,), (3, 1, 4, 5), (12, 10)):
        for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
            pixels = result.pixel_aupimo(torch.randn(shape, dtype=dtype))
            assert pixels.shape == shape
            assert pixels.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    expected = result.pixel_aupimo(maps[1])
    assert torch.equal(result.pixel_aupimo(maps[1].T).T, expected)
    tracked = result.pixel_aupimo(maps[1].clone().requires_grad_())
    assert torch.equal(tracked, expected)
    assert not tracked.requires_grad


@mean_and_max
@pytest.mark.parametrize("floor", [0.7, 1.5, 2.4])
def test_pixels_below_an_incomplete_range_count_nothing(floor: float, shared_fpr: str) -> None:
    """Where normal scores that matter were dropped, scores are lower bounds, and a warning says by how much at most."""
    maps, masks = make_images(0)
    exact = score(maps, masks, (0.01, 0.5), shared_fpr=shared_fpr)
    bounded = score(maps, masks, (0.01, 0.5), shared_fpr=shared_fpr, floor=floor)
    assert math.isnan(bounded.operating_point(fpr=0.5).shared_fpr)
    assert ["AUPIMO is a lower bound" in text for text in bounded.warnings] == [True]
    for number in (1, 3):
        in_mask = maps[number][masks[number]]
        expected = float((exact.pixel_aupimo(in_mask) * (in_mask >= floor)).mean())
        assert float(bounded.aupimos[number]) == pytest.approx(expected, abs=SUM_TOLERANCE)
        assert bool((bounded.pixel_aupimo(maps[number][maps[number] < floor]) == 0).all())
    lowest_kept = maps[[0, 2, 4]][maps[[0, 2, 4]] >= floor].min()
    missing = float(exact.pixel_aupimo(lowest_kept.float().nextafter(torch.tensor(-math.inf))))
    stated = float(re.search(r"may be up to (\S+) larger", bounded.warnings[0])[1])
    assert missing <= stated <= 1.01 * missing  # rounded up to three digits


def test_a_maximum_that_reaches_the_upper_bound_certifies_the_score() -> None:
    """Levels are complete iff one image has as many false positives above the floor as the upper bound allows."""
    maps, masks = make_image_list(9, [(10, 10), (20, 20), (8, 8)], anomalous=(2,))
    maps[0] += 1  # has the largest share everywhere; the mean is not much more than half of it
    bounds = (0.02, 0.2)
    exact = score(maps, masks, bounds, shared_fpr="max").aupimos
    falling = maps[0].flatten().sort(descending=True).values
    complete = score(maps, masks, bounds, shared_fpr="max", floor=float(falling[19]))  # 20 of 100 pixels
    assert torch.equal(complete.aupimos[2], exact[2])
    # a lower normal score may have the same maximum: then that would be the threshold
    assert math.isnan(complete.threshold_bounds[0])
    (text,) = complete.warnings
    assert re.match("AUPIMO does not know the threshold .* Set `normal_buffer=None`", text)
    bounded = score(maps, masks, bounds, shared_fpr="max", floor=float(falling[18]))
    assert re.match(r"AUPIMO is a lower bound.*shared FPR of 0\.19 only, but 0\.2 is needed", bounded.warnings[0])
    assert float(bounded.aupimos[2]) <= float(exact[2])
