"""The functions: arrays and tensors in every accepted form, and what comes back."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import reference
import torch
from helpers import as_arrays, make_image_list, make_images
from torch import Tensor

from aupimo_torchmetrics import PIMOResult
from aupimo_torchmetrics.functional import aupimo, pimo, pixel_auroc

BOUNDS = (0.01, 0.3)
ROUNDING = {torch.float64: 1e-12, torch.float32: 1e-7}
"""Sums of float64 in another order than the reference's, and the rounding of a number in [0, 1] to float32 (3e-8)."""


@pytest.fixture
def images() -> tuple[Tensor, Tensor]:
    """Float32 maps and masks (5, 12, 10), of which the second and the fourth are anomalous."""
    maps, masks = make_images(0)
    return maps.float(), masks


def scored(maps: Any, masks: Any) -> Any:
    """Scores of all images."""
    return aupimo(maps, masks, fpr_bounds=BOUNDS, reduction="none")


def by_reference(maps: Any, masks: Any) -> list[float]:
    """Scores by the reference."""
    return reference.aupimo(as_arrays(maps), as_arrays(masks), BOUNDS)


def assert_scores(actual: Any, expected: list[float], atol: float = ROUNDING[torch.float32]) -> None:
    """Compare scores of either kind with those of the reference; NaN equals NaN."""
    np.testing.assert_allclose(np.asarray(actual), expected, rtol=0.0, atol=atol)


@pytest.mark.filterwarnings("ignore:AUPIMO may be inaccurate")
@pytest.mark.parametrize("bounds", [(0.01, 0.3), [0.01, 0.3], (np.float32(0.01), np.float64(0.3)), (0.25, 1)])
def test_bounds_may_be_any_pair_of_numbers(images: tuple[Tensor, Tensor], bounds: Any) -> None:
    """Tuples, lists, NumPy numbers and integers are numbers; by position the number of thresholds comes first."""
    lower, upper = (float(bound) for bound in bounds)
    for number in (None, 50):
        expected = aupimo(*images, fpr_bounds=(lower, upper), num_thresholds=number)
        assert torch.equal(aupimo(*images, number, bounds), expected)


def test_no_map_loses_precision() -> None:
    """Scores that float32 cannot tell apart are ranked in float64, also where maps of a list have several dtypes."""
    maps, masks = make_images(0)
    assert_scores(scored(1 + 1e-9 * maps, masks), scored(maps, masks).tolist(), 1e-12)
    several, masks_of_several = make_image_list(1)
    several[2], several[3] = several[2].half(), several[3].bfloat16()
    scores = scored(several, masks_of_several)
    assert scores.dtype == torch.float64
    expected = by_reference([each.double() for each in several], masks_of_several)
    assert_scores(scores, expected, ROUNDING[torch.float64])


@pytest.mark.parametrize(
    ("dtype", "mask_dtype"),
    [(np.float16, np.bool_), (np.float32, np.uint8), (np.float32, np.int64), (np.float64, np.float32)],
)
def test_arrays_in_arrays_out(images: tuple[Tensor, Tensor], dtype: Any, mask_dtype: Any) -> None:
    """Of NumPy arrays the scores are what they are of tensors, as NumPy arrays; the kind of the maps decides."""
    maps, masks = images[0].numpy().astype(dtype), images[1].numpy().astype(mask_dtype)
    tensors = torch.from_numpy(maps), torch.from_numpy(masks)
    expected = scored(*tensors)
    for scores in (scored(maps, masks), scored(maps, tensors[1])):
        assert isinstance(scores, np.ndarray)
        assert scores.dtype == (np.float64 if dtype == np.float64 else np.float32)
        np.testing.assert_array_equal(scores, expected.numpy())
    assert torch.equal(scored(tensors[0], masks).nan_to_num(), expected.nan_to_num())
    mean = aupimo(maps, masks, fpr_bounds=BOUNDS)
    assert isinstance(mean, np.ndarray)
    assert mean.shape == ()
    curves = pimo(maps, masks, 7)
    assert isinstance(curves, PIMOResult)
    for part, of_tensor in zip(curves, pimo(*tensors, 7), strict=True):
        assert isinstance(part, np.ndarray)
        np.testing.assert_array_equal(part, of_tensor.numpy())


@pytest.mark.parametrize("size", [(1, 9, 40), (8, 1, 40), (8, 40, 1)])
def test_arrays_may_be_turned_along_an_axis_of_one_item(size: tuple[int, ...]) -> None:
    """NumPy takes these for arrays in order, and torch takes no negative stride."""
    maps = np.random.default_rng(0).normal(size=size).astype(np.float32)
    axis = size.index(1)
    turned = np.flip(maps, axis)
    assert min(turned.strides) < 0
    for each in (maps, turned):
        np.testing.assert_array_equal(pixel_auroc(each, each > 1), pixel_auroc(torch.from_numpy(maps), maps > 1))


@pytest.mark.parametrize("dtype", [object, "U1", "M8[s]"])
def test_arrays_of_something_else_are_refused(dtype: Any) -> None:
    """Arrays that hold no numbers are an error that names their dtype."""
    maps, masks = (part.numpy() for part in make_images(0, 3, size=(10, 10)))
    for arrays in ((maps.astype("i4").astype(dtype), masks), (maps, masks.astype("i4").astype(dtype))):
        with pytest.raises(TypeError, match="Expected maps and masks of numbers, but got an array of dtype"):
            aupimo(*arrays, fpr_bounds=BOUNDS)


def test_a_maximum_that_small_images_leave_uncertain_asks_for_larger_ones() -> None:
    """Where no image has enough pixels, or a small one steps over the bounds, the warning says how many are enough."""
    many = make_images(0, 40, size=(10, 10))
    aupimo(*many, fpr_bounds=(1e-3, 1e-1))  # 3,800 normal pixels are enough for the mean
    maps, masks = make_image_list(0, [(2, 2), (20, 20), (20, 20)], anomalous=(2,))
    maps[1][0, 0], maps[0][0, 0] = 10.0, 9.0
    lowest = r"lowest shared FPR above 0 of any threshold is 0\.01, the lower bound is 0\.001\. .* 1000 pixels or more"
    steps = (
        r"no threshold lies between them, tied scores or small images make the shared FPR step from 0\.0025 to 0\.25"
    )
    for images, bound, text in (
        (many, 1e-3, rf"{lowest}, larger `fpr_bounds`"),
        ((maps, masks), 1e-2, rf"{steps}\. .* Use normal images of 100 pixels or more"),
    ):
        with pytest.warns(UserWarning, match=text):
            aupimo(*images, fpr_bounds=(bound, 1e-1), shared_fpr="max")


def test_exact_score_of_infinite_scores_is_defined_and_sampled_is_not() -> None:
    """A grid of thresholds has no even steps up to infinity; the exact score needs none."""
    maps, masks = make_images(0)
    maps[0, 0, 0] = math.inf
    assert_scores(scored(maps, masks), by_reference(maps, masks), ROUNDING[torch.float64])
    for function in (aupimo, pimo):
        with pytest.warns(UserWarning, match="is infinite"):
            sampled = function(maps, masks, 7)
        parts = sampled if isinstance(sampled, tuple) else [sampled]
        assert all(bool(part.isnan().all()) for part in parts)
