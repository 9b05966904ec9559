"""A threshold is chosen, what it does is measured, and how sure that is is said."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import updated
from torch import Tensor

from aupimo_torchmetrics import AUPIMO, AUPIMOResult

pytestmark = pytest.mark.filterwarnings("ignore:AUPIMO is uncertain")

Images = tuple[list[Tensor], list[Tensor]]
BOUNDS = (1e-2, 1e-1)
SIZES = [(16, 16), (7, 5), (13, 11), (1, 1), (40, 32)]


def make_images(sizes: list[tuple[int, int]], dtype: torch.dtype = torch.float32, seed: int = 0) -> Images:
    """Make maps with ties, and targets of which every second image is anomalous and some pixels are 255, ignored."""
    generator = torch.Generator().manual_seed(seed)
    maps = [
        (8 * torch.randn(size, generator=generator, dtype=torch.float64)).round().div(8).to(dtype) for size in sizes
    ]
    targets = [torch.zeros(size, dtype=torch.uint8) for size in sizes]
    for number, target in enumerate(targets):
        target[: (len(target) + 1) // 2] = number % 2
        target[torch.rand(target.shape, generator=generator) < 0.2] = 255
        target.view(-1)[0] = number % 2  # at least this pixel counts
    return maps, targets


def highest_by_loop(maps: list[Tensor], targets: list[Tensor], ignore_index: int | None) -> list[float]:
    """Find the highest score of each image pixel by pixel, in float32 as scores are kept."""
    highest = []
    for scores, target in zip(maps, targets, strict=True):
        pairs = zip(scores.float().flatten().tolist(), target.flatten().tolist(), strict=True)
        highest.append(max(score for score, value in pairs if value != ignore_index))
    return highest


KEPT = [(torch.float16, 255, 1), (torch.bfloat16, None, 1), (torch.float32, None, None), (torch.float64, 255, None)]


@pytest.mark.parametrize(("dtype", "ignore_index", "normal_buffer"), KEPT)
def test_highest_scores_are_those_of_a_loop(dtype: torch.dtype, ignore_index: Any, normal_buffer: Any) -> None:
    """Of images of any sizes and classes, in any batches, and whatever else was kept of them."""
    sizes = [*SIZES, *SIZES, (64, 64), (64, 64), (16, 8), (16, 8)]
    maps, targets = make_images(sizes, dtype)
    if ignore_index is None:
        targets = [(target == 1).to(torch.uint8) for target in targets]
    metric = AUPIMO(fpr_bounds=BOUNDS, ignore_index=ignore_index, normal_buffer=normal_buffer)
    parts = [(torch.stack(maps[part]), torch.stack(targets[part])) for part in (slice(10, 12), slice(12, 14))]
    highest = updated(metric, [(maps[:10], targets[:10]), *parts]).result().max_scores
    assert highest.tolist() == highest_by_loop(maps, targets, ignore_index)


def test_highest_scores_follow_the_images(tmp_path: Path) -> None:
    """They are in the order of the ids, go through merging, and are saved and loaded; a repeated image counts once."""
    maps, targets = make_images(SIZES)
    expected = highest_by_loop(maps, targets, 255)
    first, second = (AUPIMO(fpr_bounds=BOUNDS, ignore_index=255) for _ in range(2))
    first.update(maps[3:], targets[3:], image_ids=["3", "4"])
    second.update([*maps[:3], maps[4]], [*targets[:3], targets[4]], image_ids=["2", "1", "0", "4"])
    first.merge_state(second)
    result = first.result()
    assert result.paths == ["0", "1", "2", "3", "4"]
    result.save(tmp_path / "aupimos.json")
    loaded = AUPIMOResult.load(tmp_path / "aupimos.json")
    for each in (result, loaded):
        assert each.max_scores.tolist() == [expected[index] for index in (2, 1, 0, 3, 4)]
    assert loaded.alarm_threshold(0.5) == result.alarm_threshold(0.5)
    assert repr(loaded.operating_point(threshold=1.0)) == repr(result.operating_point(threshold=1.0))


@pytest.mark.parametrize("threshold", [-math.inf, -3.0, 0.0, 1.375, 2.0, math.inf])
def test_alarms_are_known_at_any_threshold(threshold: float) -> None:
    """Where FPR and recall are not known they are NaN, with the reason; alarms equal those of a loop."""
    maps, targets = make_images([(32, 32)] * 6)
    alarms = (torch.tensor(highest_by_loop(maps, targets, 255)) >= threshold).double()
    points = []
    for normal_buffer in (1, None):
        metric = AUPIMO(fpr_bounds=(1e-4, 1e-3), normal_buffer=normal_buffer, ignore_index=255)
        points.append(updated(metric, [(maps, targets)]).result().operating_point(threshold=threshold))
        assert points[-1].share_of_normal_images_with_alarm == float(alarms[0::2].mean())
        assert points[-1].share_of_anomalous_images_with_alarm == float(alarms[1::2].mean())
    known, complete = points
    assert ["few images" in text for text in complete.warnings] == [complete.shared_fpr > 0] * len(complete.warnings)
    if math.isnan(known.shared_fpr):
        assert math.isnan(known.shared_fpr_interval[0])
        assert bool(known.per_image_tprs.isnan().all())
        assert ["`normal_buffer=None`" in text for text in known.warnings] == [True]
    else:
        assert known.warnings == complete.warnings
        assert known.shared_fpr == complete.shared_fpr
        assert known.per_image_tprs.tolist() == pytest.approx(complete.per_image_tprs.tolist(), abs=0, nan_ok=True)


@pytest.mark.parametrize(("num_high", "is_told"), [(1, True), (19, True), (20, False)])
def test_few_images_that_carry_the_fpr_are_told(num_high: int, is_told: bool) -> None:
    """Where fewer than 20 of the normal images have all false positives, result and operating point say how many."""
    maps = torch.zeros(41, 10, 10)
    maps[:num_high, 0, 0] = 1.0
    masks = torch.zeros(41, 10, 10, dtype=torch.bool)
    masks[40] = True
    result = updated(AUPIMO(fpr_bounds=(1e-4, num_high / 4000)), [(maps, masks)]).result()
    for texts in (result.warnings, result.operating_point(threshold=0.5).warnings):
        told = [text for text in texts if "few images" in text]
        assert [f"as that of {num_high:.1f} images would, of 40 normal ones" in text for text in told] == [
            True
        ] * is_told
    assert result.operating_point(threshold=2.0).warnings == ()  # no pixel reaches it
    strict = updated(AUPIMO(fpr_bounds=(1e-4, 1e-2), shared_fpr="max"), [(maps, masks)])
    assert not any("few images" in text for text in strict.result().warnings)


@pytest.mark.parametrize(
    ("share", "has_ties", "num_choices"), [pytest.param(0.05, False, 2000, marks=pytest.mark.slow), (0.29, True, 500)]
)
def test_the_promise_of_alarms_holds_for_new_images(share: float, has_ties: bool, num_choices: int) -> None:
    """Over many choices from 40 images, a fresh image raises an alarm no more often than promised."""
    generator = np.random.default_rng(0)
    alarms, metric = 0, AUPIMO(fpr_bounds=BOUNDS, validate_args=False)
    for _ in range(num_choices):
        scores = generator.normal(size=41)
        scores = np.round(scores) if has_ties else scores
        maps = torch.tensor(scores[:40], dtype=torch.float32).view(-1, 1, 1)
        metric.reset()
        metric.update(maps, torch.zeros_like(maps, dtype=torch.bool))
        alarms += bool(np.float32(scores[40]) >= metric.result().alarm_threshold(share))
    error = 3 * math.sqrt(share * (1 - share) / num_choices)  # three standard deviations of the share
    assert alarms / num_choices <= share + error
    if not has_ties:  # nor is it far too careful: one image of 41 is the step
        assert alarms / num_choices >= share - 1 / 41 - error


def test_alarm_thresholds_need_enough_images() -> None:
    """Too few images are an error that says how many are needed, and so many are enough."""
    maps = torch.arange(38.0).view(19, 1, 2)
    metric = updated(AUPIMO(fpr_bounds=BOUNDS), [(maps[:18], maps[:18] < 0)])
    with pytest.raises(ValueError, match=r"Expected 19 normal images or more for `share=0\.05`, but got 18"):
        metric.result().alarm_threshold(0.05)
    metric.update(maps[18:], maps[18:] < 0)
    result = metric.result()
    assert result.alarm_threshold(0.05) == np.nextafter(np.float32(37), np.float32(np.inf))
    for share in (
        1 / 20,
        1 / 4,
        2 / 5,
        torch.tensor(0.25),
    ):  # of 20 images with the new one, those that may raise an alarm
        assert result.alarm_threshold(share) == np.nextafter(
            np.float32(39 - 2 * round(20 * float(share))), np.float32(99)
        )
    metric.update(maps[:1] + 38, maps[:1] < 0)
    assert metric.result().alarm_threshold(1 / 3) == np.nextafter(np.float32(27), np.float32(99))  # 7 of 21
    for share in (0.0, 1.0, math.nan):
        with pytest.raises(ValueError, match=r"Expected `share` to be in \(0, 1\)"):
            result.alarm_threshold(share)


def test_the_interval_is_that_of_resampled_images() -> None:
    """It equals quantiles of independent resamples to their sampling error, is repeatable, and NaN for one image."""
    maps, _ = make_images([(20, 20)] * 60, seed=3)
    stack = torch.stack(maps) + 0.02 * torch.arange(60.0).view(-1, 1, 1)  # images differ
    metric = updated(AUPIMO(fpr_bounds=BOUNDS), [(stack, stack.isnan())])
    point = metric.result().operating_point(threshold=2.0)
    assert point.shared_fpr_interval == metric.result().operating_point(threshold=2.0).shared_fpr_interval
    shares = (stack >= 2.0).double().mean((1, 2)).numpy()
    generator = np.random.default_rng(1)
    means = generator.choice(shares, size=(20_000, 60)).mean(1)
    tail = 0.0219  # Phi(sqrt(60 / 59) * t) with t the 2.5 % quantile of Student's t with 59 degrees
    low, high = np.quantile(means, [tail, 1 - tail])
    assert point.shared_fpr_interval == pytest.approx((low, high), abs=0.25 * means.std())
    assert point.shared_fpr_interval[0] < point.shared_fpr < point.shared_fpr_interval[1]
    one = updated(AUPIMO(fpr_bounds=BOUNDS), [(stack[:1], stack[:1].isnan())])
    assert math.isnan(one.result().operating_point(threshold=2.0).shared_fpr_interval[0])
