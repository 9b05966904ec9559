"""Agreement with recorded answers of the official package, see `tests/data/README.md`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import caught_texts, updated
from torch import Tensor

from aupimo_torchmetrics import AUPIMO, PIMO
from aupimo_torchmetrics.functional import aupimo, pimo

# The official package warns of the same data, see the last test.
pytestmark = pytest.mark.filterwarnings("ignore:AUPIMO may be inaccurate:UserWarning")

DATA = Path(__file__).parent / "data"
SCORES = [
    *(("smooth", 3000), ("smooth", 300_000), ("tied", 5000), ("tied", 300_000)),
    *(("heavy_tail", 300_000), ("float64", 100_000), ("default_bounds", 300_000)),
]
each_score = pytest.mark.parametrize(("name", "num_thresholds"), SCORES)

SAME_SUM = 1e-12
"""The same float64 terms are added in another order; 8e-15 was seen."""
FLOAT32 = 1e-7
"""A number in [0, 1] is rounded to float32 by at most 3e-8."""
ROUNDED_MAPS = 1e-6
"""A metric rounds float64 maps to float32: a mask pixel that this moves across a threshold, of which there are 100,000
between the lowest and the highest score, weighs one part in a mask times one step of the sum."""


class Recorded:
    """What the official package answered for one file and one number of thresholds."""

    def __init__(self, name: str, num_thresholds: int) -> None:
        with np.load(DATA / f"{name}.npz") as file:
            answers = {key.removesuffix(f"_{num_thresholds}"): torch.from_numpy(file[key]) for key in file}
        self.maps, self.masks, self.aupimos = (answers[key] for key in ("anomaly_maps", "masks", "aupimo"))
        self.is_double = self.maps.dtype == torch.float64
        self.fpr_bounds: tuple[float, float] = tuple(answers["fpr_bounds"].tolist())
        self.num_points = int(answers["num_points"])
        self.threshold_bounds = tuple(answers["threshold_bounds"].tolist())
        self.curves = [answers.get(key) for key in ("thresholds", "shared_fpr", "per_image_tpr")]

    def batches(self, size: int) -> list[tuple[Tensor, Tensor]]:
        """Maps and masks in batches."""
        return list(zip(self.maps.split(size), self.masks.split(size), strict=True))


def assert_close(actual: Tensor, expected: Any, atol: float) -> None:
    """Compare by the absolute difference, whatever the dtype; NaN equals NaN."""
    torch.testing.assert_close(actual, expected, rtol=0.0, atol=atol, equal_nan=True, check_dtype=False)


@each_score
def test_scores_are_those_of_the_official_package(name: str, num_thresholds: int) -> None:
    """The function gives the official scores in the dtype of the maps, and the metric in float32, of any batches."""
    recorded = Recorded(name, num_thresholds)
    settings = num_thresholds, recorded.fpr_bounds
    scores = aupimo(recorded.maps, recorded.masks, *settings, reduction="none")
    assert scores.dtype == recorded.maps.dtype
    assert_close(scores, recorded.aupimos, SAME_SUM if recorded.is_double else FLOAT32)
    assert_close(aupimo(recorded.maps, recorded.masks, *settings), recorded.aupimos.nanmean(), FLOAT32)
    metric = updated(AUPIMO(*settings, reduction="none"), recorded.batches(5))
    scores, result = metric.compute(), metric.result()
    assert scores.dtype == torch.float32
    assert_close(scores, recorded.aupimos, ROUNDED_MAPS if recorded.is_double else FLOAT32)
    assert_close(result.aupimos, recorded.aupimos, ROUNDED_MAPS if recorded.is_double else SAME_SUM)
    assert result.num_points == recorded.num_points
    # float64 maps are rounded to float32, 6e-8 of a threshold.
    rounding = 1e-7 if recorded.is_double else 0
    assert result.threshold_bounds == pytest.approx(recorded.threshold_bounds, rel=rounding, abs=0.0)


def test_metric_with_a_small_buffer_answers_as_the_official_package() -> None:
    """A metric that drops all but the highest normal scores gives the official answers at the paper's bounds."""
    recorded = Recorded("default_bounds", 300_000)
    metric = updated(AUPIMO(300_000, reduction="none", normal_buffer=1000), recorded.batches(1))
    assert sum(len(scores) for scores in metric.aupimo_normal_scores) < recorded.maps.numel() / 10
    assert_close(metric.compute(), recorded.aupimos, FLOAT32)
    assert metric.result().threshold_bounds == recorded.threshold_bounds


@pytest.mark.parametrize(("name", "num_thresholds"), [("smooth", 3000), ("tied", 5000)])
def test_curves_are_those_of_the_official_package(name: str, num_thresholds: int) -> None:
    """Thresholds and TPRs equal the official ones, the shared FPR up to its rounding to float32, none in float64."""
    recorded = Recorded(name, num_thresholds)
    thresholds, shared_fpr, tprs = recorded.curves
    of_function = pimo(recorded.maps, recorded.masks, num_thresholds)
    for curves in (of_function, updated(PIMO(num_thresholds), recorded.batches(5)).compute()):
        assert_close(curves.thresholds, thresholds, 0.0)
        assert_close(curves.shared_fpr, shared_fpr, FLOAT32)
        assert_close(curves.per_image_tprs, tprs, 0.0)
    curves = pimo(recorded.maps.double(), recorded.masks, num_thresholds)
    is_same_threshold = curves.thresholds == thresholds
    # A grid in float64 is not rounded to float32, so only the thresholds that need no rounding are the same.
    assert int(is_same_threshold.sum()) >= 2
    assert_close(curves.shared_fpr[is_same_threshold], shared_fpr[is_same_threshold], SAME_SUM)


@each_score
def test_exact_scores_are_near_the_official_ones(name: str, num_thresholds: int) -> None:
    """The exact score differs from the sampled one as much as sampled thresholds miss the bounds, here at most 0.0032.

    Seen: 1.0e-3 smooth, 2.6e-3 tied, 0.8e-3 heavy tail, 1.1e-3 float64, 3.1e-3 at the paper's bounds.
    """
    recorded = Recorded(name, num_thresholds)
    exact = aupimo(recorded.maps, recorded.masks, fpr_bounds=recorded.fpr_bounds, reduction="none")
    assert_close(exact, recorded.aupimos, 0.0032)
    assert float((exact - recorded.aupimos).nan_to_num().abs().max()) > 0.0


@pytest.mark.parametrize(
    ("name", "num_thresholds", "complaint"),
    [
        ("default_bounds", 300_000, "reach 9.04e-06 for 1e-05"),
        ("smooth", 1000, "only 237 thresholds lie between"),
        ("smooth", 300_000, None),
    ],
)
def test_official_rules_of_sampling_are_warnings(name: str, num_thresholds: int, complaint: str | None) -> None:
    """A bound missed by more than 1 % and fewer than 300 thresholds between the bounds draw a warning, else nothing."""
    recorded = Recorded(name, 300_000)
    with caught_texts() as messages:
        aupimo(recorded.maps, recorded.masks, num_thresholds, recorded.fpr_bounds)
    assert len(messages) == (complaint is not None)
    assert complaint is None or complaint in messages[0]
