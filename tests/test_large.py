"""Counts stay exact where float32 and int32 would not count any further, and over hundreds of images."""

from __future__ import annotations

import math

import pytest
import torch
from helpers import MAX_ERROR, assert_same, make_batch, updated

from aupimo_torchmetrics import AUPIMO

SCORE_TOLERANCE = 1e-12
"""Logs of exact counts in float64."""


def test_more_than_two_to_the_24_pixels() -> None:
    """Beyond what float32 can count every pixel of a normal image and of a mask counts."""
    num_pixels = 125 * 134_219  # 2**24 + 159, which is odd: float32 has no such number
    normal, defect = torch.zeros(2, 1, 1, num_pixels)
    normal[..., : 2**17] = torch.arange(2**17) / 2**17  # more than the buffer holds
    defect[..., : 2**24 + 1] = 2.0
    metric = AUPIMO(fpr_bounds=(0.5 / num_pixels, 1 / num_pixels))
    metric.update(normal, torch.zeros_like(normal, dtype=torch.bool))
    metric.update(defect, torch.ones_like(defect, dtype=torch.bool))
    with pytest.warns(UserWarning, match="cannot be resolved"):
        result = metric.result()
    assert result.aupimos[1] == (2**24 + 1) / num_pixels
    assert int(torch.cat(metric.aupimo_num_pixels).sum()) == 2 * num_pixels


def test_more_than_two_to_the_31_pixels() -> None:
    """A stream longer than int32 can count scores as its definition says, computed by hand."""
    num_images, side = 2**11 + 2, 2**10
    maps = torch.arange(2.0 * side**2).view(2, side, side) / 2**22  # below 0.5, all distinct in one batch
    masks = torch.zeros(2, side, side, dtype=torch.bool)
    maps[0, 0, 0] = maps[1, 5, 7:9] = 1.0
    metric = AUPIMO(fpr_bounds=(1e-7, 1e-5))
    for _ in range(num_images // 2):
        metric.update(maps, masks)
    num_normal_pixels = num_images * side**2
    assert num_normal_pixels > 2**31
    defect, mask = torch.full((1, 1, 4), 1.0), torch.ones(1, 1, 4, dtype=torch.bool)
    defect[..., 0] = 2.0
    metric.update(defect, mask)
    with pytest.warns(UserWarning, match="cannot be resolved"):
        scores = metric.result().aupimos
    # three of 2**21 pixels have the score 1: the pixels of that score are recalled along a line up to this FPR
    tie = 3 / 2**21
    low, high = 1e-7, 1e-5
    at_one = (math.log(high / tie) + (tie - low) / tie) / math.log(high / low)
    assert_same(scores[-1], torch.tensor((1 + 3 * at_one) / 4, dtype=torch.float64), atol=SCORE_TOLERANCE)
    assert len(scores) == num_images + 1


NUM_NORMAL = 500


@pytest.mark.parametrize("bad_index", [0, 250, 499])
@pytest.mark.parametrize("normal_buffer", [None, 2**16, 1000])
def test_one_of_five_hundred_images_full_of_false_alarms(bad_index: int, normal_buffer: int | None) -> None:
    """Wherever the one bad image comes, the buffer holds its scores and those below: scores are exact."""
    images = [make_batch("N", seed) for seed in range(20)]
    stream = [images[i % 20] for i in range(NUM_NORMAL)]
    bad, mask = make_batch("N", 99)
    stream[bad_index] = (bad + 20, mask)
    preds, target = make_batch("AAA", 3)
    defects = (preds + torch.tensor([0.0, 12.0, 17.5])[:, None, None] * target, target)
    fpr_bounds = (1e-4, 1e-3)  # the false alarms are 2e-3 of all normal pixels, all of the range
    metric = AUPIMO(fpr_bounds=fpr_bounds, reduction="none", normal_buffer=normal_buffer)
    exact = AUPIMO(fpr_bounds=fpr_bounds, reduction="none", normal_buffer=None)
    scores, expected = (updated(each, [*stream, defects]).compute()[-3:] for each in (metric, exact))
    assert_same(scores, expected, atol=MAX_ERROR)
    assert 0 < expected[2] < 1
    assert expected[0] == expected[1] == 0


def test_five_hundred_images_with_the_worst_first_and_a_tiny_buffer() -> None:
    """Where the buffer is too small the score is a lower bound with a warning, and without a limit it is exact."""
    bad, empty = make_batch("NN", 99)
    stream = [(bad + 20, empty), *[make_batch("N", seed) for seed in range(20)] * 25]
    preds, target = make_batch("AA", 3)
    defects = (preds + 10 * target, target)
    fpr_bounds = (1e-4, 1e-2)  # the top 5020 of all scores, of which the first batch leaves 200
    metric = AUPIMO(fpr_bounds=fpr_bounds, reduction="none", normal_buffer=1)
    exact = AUPIMO(fpr_bounds=fpr_bounds, reduction="none", normal_buffer=None)
    expected = updated(exact, [*stream, defects]).compute()[-2:]
    updated(metric, [*stream, defects])
    with pytest.warns(UserWarning, match="AUPIMO is a lower bound"):
        scores = metric.compute()[-2:]
    assert bool((scores <= expected).all())
    assert bool((scores < expected).any())
