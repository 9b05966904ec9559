"""Agreement with recorded answers of the official package, see `tests/data/README.md`."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from aupimo_torchmetrics import AUPIMO, PIMO, AUPIMOResult
from aupimo_torchmetrics.functional import aupimo, pimo

# The official package warns of the same data, see the last test.
pytestmark = pytest.mark.filterwarnings("ignore:AUPIMO may be inaccurate:UserWarning")

DATA = Path(__file__).parent / "data"
SCORES = [
    ("smooth", 3000),
    ("smooth", 300_000),
    ("tied", 5000),
    ("tied", 300_000),
    ("heavy_tail", 300_000),
    ("float64", 100_000),
    ("default_bounds", 300_000),
]
CURVES = [("smooth", 3000), ("tied", 5000)]

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
            self.maps = torch.from_numpy(file["anomaly_maps"])
            self.masks = torch.from_numpy(file["masks"])
            self.fpr_bounds: tuple[float, float] = tuple(file["fpr_bounds"].tolist())
            self.aupimos = torch.from_numpy(file[f"aupimo_{num_thresholds}"])
            self.num_points = int(file[f"num_points_{num_thresholds}"])
            self.threshold_bounds = tuple(file[f"threshold_bounds_{num_thresholds}"].tolist())
            self.curves = [
                torch.from_numpy(file[key]) if key in file else None
                for key in (
                    f"thresholds_{num_thresholds}",
                    f"shared_fpr_{num_thresholds}",
                    f"per_image_tpr_{num_thresholds}",
                )
            ]


@pytest.fixture(params=SCORES, ids=[f"{name}-{num_thresholds}" for name, num_thresholds in SCORES])
def recorded_scores(request: pytest.FixtureRequest) -> tuple[Recorded, int]:
    """Recorded scores, and their number of thresholds."""
    name, num_thresholds = request.param
    return Recorded(name, num_thresholds), num_thresholds


@pytest.fixture(params=CURVES, ids=[f"{name}-{num_thresholds}" for name, num_thresholds in CURVES])
def recorded_curves(request: pytest.FixtureRequest) -> tuple[Recorded, int]:
    """Recorded curves, and their number of thresholds."""
    name, num_thresholds = request.param
    return Recorded(name, num_thresholds), num_thresholds


def assert_close(actual: Tensor, expected: Any, atol: float) -> None:
    """Compare by the absolute difference, whatever the dtype; NaN equals NaN."""
    torch.testing.assert_close(actual, expected, rtol=0.0, atol=atol, equal_nan=True, check_dtype=False)


def updated(metric: AUPIMO | PIMO, recorded: Recorded, batch_size: int = 5) -> Any:
    """Return the metric after it has seen the recorded images in batches."""
    for maps, masks in zip(recorded.maps.split(batch_size), recorded.masks.split(batch_size), strict=True):
        metric.update(maps, masks)
    return metric


def test_function_answers_as_the_official_package(recorded_scores: tuple[Recorded, int]) -> None:
    """The public function gives the official scores, rounded to the dtype of the maps."""
    recorded, num_thresholds = recorded_scores
    scores = aupimo(recorded.maps, recorded.masks, num_thresholds, recorded.fpr_bounds, reduction="none")
    assert scores.dtype == recorded.maps.dtype
    assert_close(scores, recorded.aupimos, FLOAT32 if scores.dtype == torch.float32 else SAME_SUM)
    mean = aupimo(recorded.maps, recorded.masks, num_thresholds, recorded.fpr_bounds)
    assert_close(mean, recorded.aupimos.nanmean(), FLOAT32)


def test_metric_answers_as_the_official_package(recorded_scores: tuple[Recorded, int]) -> None:
    """The metric gives the official scores in float32 after updates in batches."""
    recorded, num_thresholds = recorded_scores
    atol = FLOAT32 if recorded.maps.dtype == torch.float32 else ROUNDED_MAPS
    metric = updated(AUPIMO(num_thresholds, recorded.fpr_bounds, reduction="none"), recorded)
    scores = metric.compute()
    assert scores.dtype == torch.float32
    assert_close(scores, recorded.aupimos, atol)
    result: AUPIMOResult = metric.result()
    assert result.num_points == recorded.num_points
    # float64 maps are rounded to float32, 6e-8 of a threshold.
    is_double = recorded.maps.dtype == torch.float64
    assert_close(result.aupimos, recorded.aupimos, ROUNDED_MAPS if is_double else SAME_SUM)
    assert result.threshold_bounds == pytest.approx(recorded.threshold_bounds, rel=1e-7 if is_double else 0, abs=0.0)


def test_metric_with_a_small_buffer_answers_as_the_official_package() -> None:
    """A metric that drops all but the highest normal scores gives the official answers at the paper's bounds."""
    recorded = Recorded("default_bounds", 300_000)
    metric = updated(AUPIMO(300_000, reduction="none", normal_buffer=1000), recorded, batch_size=1)
    assert sum(len(scores) for scores in metric.aupimo_normal_scores) < recorded.maps.numel() / 10
    assert_close(metric.compute(), recorded.aupimos, FLOAT32)
    assert metric.result().threshold_bounds == recorded.threshold_bounds


def test_function_draws_the_official_curves(recorded_curves: tuple[Recorded, int]) -> None:
    """Thresholds and TPRs of the curves equal the official ones, the shared FPR up to its rounding to float32."""
    recorded, num_thresholds = recorded_curves
    curves = pimo(recorded.maps, recorded.masks, num_thresholds)
    assert_close(curves.thresholds, recorded.curves[0], 0.0)
    assert_close(curves.shared_fpr, recorded.curves[1], FLOAT32)
    assert_close(curves.per_image_tprs, recorded.curves[2], 0.0)


def test_metric_draws_the_official_curves(recorded_curves: tuple[Recorded, int]) -> None:
    """The metric of curves equals the official ones after updates in batches."""
    recorded, num_thresholds = recorded_curves
    curves = updated(PIMO(num_thresholds), recorded).compute()
    assert_close(curves.thresholds, recorded.curves[0], 0.0)
    assert_close(curves.shared_fpr, recorded.curves[1], FLOAT32)
    assert_close(curves.per_image_tprs, recorded.curves[2], 0.0)


def test_curves_in_float64_equal_the_official_ones(recorded_curves: tuple[Recorded, int]) -> None:
    """Of the same scores in float64 the shared FPR equals the official one in full precision."""
    recorded, num_thresholds = recorded_curves
    curves = pimo(recorded.maps.double(), recorded.masks, num_thresholds)
    is_same_threshold = curves.thresholds == recorded.curves[0]
    # A grid in float64 is not rounded to float32, so only the thresholds that need no rounding are the same.
    assert int(is_same_threshold.sum()) >= 2
    assert_close(curves.shared_fpr[is_same_threshold], recorded.curves[1][is_same_threshold], SAME_SUM)


@pytest.mark.parametrize(("name", "num_thresholds"), SCORES)
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
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        aupimo(recorded.maps, recorded.masks, num_thresholds, recorded.fpr_bounds)
    messages = [str(warning.message) for warning in caught]
    assert len(messages) == (complaint is not None)
    assert complaint is None or complaint in messages[0]
