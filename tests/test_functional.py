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
from aupimo_torchmetrics.functional import aupimo, pimo

BOUNDS = (0.01, 0.3)
ROUNDING = {torch.float64: 1e-12, torch.float32: 1e-7}
"""Sums of float64 in another order than the reference's, and the rounding of a number in [0, 1] to float32 (3e-8)."""


@pytest.fixture
def images() -> tuple[Tensor, Tensor]:
    """Float32 maps and masks (5, 12, 10), of which the second and the fourth are anomalous."""
    maps, masks = make_images(0)
    return maps.float(), masks


@pytest.fixture
def expected(images: tuple[Tensor, Tensor]) -> list[float]:
    """Scores of `images` by the reference."""
    return reference.aupimo(as_arrays(images[0]), as_arrays(images[1]), BOUNDS)


def assert_scores(actual: Any, expected: list[float], atol: float = ROUNDING[torch.float32]) -> None:
    """Compare scores of either kind with those of the reference; NaN equals NaN."""
    np.testing.assert_allclose(np.asarray(actual), expected, rtol=0.0, atol=atol)


def test_mean_is_that_of_the_anomalous_images(images: tuple[Tensor, Tensor], expected: list[float]) -> None:
    """The default result is a scalar tensor, the mean of the scores that are defined."""
    mean = aupimo(*images, fpr_bounds=BOUNDS)
    assert isinstance(mean, Tensor)
    assert mean.shape == ()
    assert_scores(mean, np.nanmean(expected))


def test_scores_come_in_the_order_of_the_images(images: tuple[Tensor, Tensor], expected: list[float]) -> None:
    """Without reduction each image has its score at its index, and a normal image NaN."""
    scores = aupimo(*images, fpr_bounds=BOUNDS, reduction="none")
    assert scores.isnan().tolist() == [True, False, True, False, True]
    assert_scores(scores, expected)


def test_settings_may_be_given_by_position(images: tuple[Tensor, Tensor]) -> None:
    """The number of thresholds comes first, then the bounds, as in anomalib."""
    with pytest.warns(UserWarning, match="may be inaccurate"):
        by_position = aupimo(*images, 50, BOUNDS)
    with pytest.warns(UserWarning, match="may be inaccurate"):
        by_name = aupimo(*images, num_thresholds=50, fpr_bounds=BOUNDS)
    assert torch.equal(by_position, by_name)


@pytest.mark.parametrize("bounds", [(0.01, 0.3), [0.01, 0.3], (np.float32(0.01), np.float64(0.3)), (0.25, 1)])
def test_bounds_may_be_any_pair_of_numbers(images: tuple[Tensor, Tensor], bounds: Any) -> None:
    """Tuples, lists, NumPy numbers and integers are numbers."""
    lower, upper = (float(bound) for bound in bounds)
    assert torch.equal(aupimo(*images, fpr_bounds=bounds), aupimo(*images, fpr_bounds=(lower, upper)))


@pytest.mark.parametrize(
    ("dtype", "result_dtype"),
    [
        (torch.float16, torch.float32),
        (torch.bfloat16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ],
)
def test_float64_maps_give_float64_results_and_others_float32(
    images: tuple[Tensor, Tensor], dtype: torch.dtype, result_dtype: torch.dtype
) -> None:
    """Results have the precision of the maps but at least float32, and the scores are those of the rounded maps."""
    maps, masks = images[0].to(dtype), images[1]
    expected = reference.aupimo(as_arrays(maps.double()), as_arrays(masks), BOUNDS)
    scores = aupimo(maps, masks, fpr_bounds=BOUNDS, reduction="none")
    assert scores.dtype == result_dtype
    assert_scores(scores, expected, ROUNDING[result_dtype])
    assert aupimo(maps, masks, fpr_bounds=BOUNDS).dtype == result_dtype
    assert {part.dtype for part in pimo(maps, masks, 7)} == {result_dtype}


def test_float64_maps_are_not_rounded() -> None:
    """Scores that float32 cannot tell apart are ranked in float64."""
    maps, masks = make_images(0)
    expected = aupimo(maps, masks, fpr_bounds=BOUNDS, reduction="none")
    assert_scores(aupimo(1 + 1e-9 * maps, masks, fpr_bounds=BOUNDS, reduction="none"), expected.tolist(), 1e-12)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("mask_dtype", [np.bool_, np.uint8, np.int64, np.float32])
def test_arrays_in_arrays_out(images: tuple[Tensor, Tensor], dtype: Any, mask_dtype: Any) -> None:
    """Of NumPy arrays the scores are what they are of tensors, as NumPy arrays."""
    maps, masks = images[0].numpy().astype(dtype), images[1].numpy().astype(mask_dtype)
    scores = aupimo(maps, masks, fpr_bounds=BOUNDS, reduction="none")
    assert isinstance(scores, np.ndarray)
    assert scores.dtype == (np.float64 if dtype == np.float64 else np.float32)
    of_tensors = aupimo(torch.from_numpy(maps), torch.from_numpy(masks), fpr_bounds=BOUNDS, reduction="none")
    np.testing.assert_array_equal(scores, of_tensors.numpy())
    mean = aupimo(maps, masks, fpr_bounds=BOUNDS)
    assert isinstance(mean, np.ndarray)
    assert mean.shape == ()
    curves = pimo(maps, masks, 7)
    assert isinstance(curves, PIMOResult)
    assert all(isinstance(part, np.ndarray) for part in curves)
    for part, of_tensor in zip(curves, pimo(torch.from_numpy(maps), torch.from_numpy(masks), 7), strict=True):
        np.testing.assert_array_equal(part, of_tensor.numpy())


def _array_forms(images: np.ndarray[Any, Any]) -> dict[str, np.ndarray[Any, Any]]:
    """The same images as arrays that PyTorch refuses, or takes with a warning."""
    read_only = images.copy()
    read_only.flags.writeable = False
    return {
        "read-only": read_only,
        "negative strides": images[:, ::-1, ::-1].copy()[:, ::-1, ::-1],
        "Fortran order": np.asfortranarray(images),
        "other byte order": images.astype(images.dtype.newbyteorder()),
        "transposed": images.transpose(0, 2, 1).copy().transpose(0, 2, 1),
        "broadcast": np.broadcast_to(images, images.shape),
        "with channel": images[:, None],
    }


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("form", _array_forms(np.zeros((1, 1, 1))))
def test_memory_of_arrays_does_not_matter(images: tuple[Tensor, Tensor], expected: list[float], form: str) -> None:
    """Read-only arrays, negative strides and other layouts give the same scores, without a warning."""
    maps, masks = (_array_forms(part.numpy())[form] for part in images)
    before = maps.copy(), masks.copy()
    assert_scores(aupimo(maps, masks, fpr_bounds=BOUNDS, reduction="none"), expected)
    assert_scores(aupimo(list(maps.squeeze()), list(masks.squeeze()), fpr_bounds=BOUNDS, reduction="none"), expected)
    np.testing.assert_array_equal(maps, before[0])
    np.testing.assert_array_equal(masks, before[1])


def test_tensor_maps_with_array_masks(images: tuple[Tensor, Tensor], expected: list[float]) -> None:
    """What comes out is of the kind of the maps."""
    maps, masks = images
    of_tensor = aupimo(maps, masks.numpy(), fpr_bounds=BOUNDS, reduction="none")
    of_array = aupimo(maps.numpy(), masks, fpr_bounds=BOUNDS, reduction="none")
    assert isinstance(of_tensor, Tensor)
    assert isinstance(of_array, np.ndarray)
    assert_scores(of_tensor, expected)
    assert_scores(of_array, expected)


def test_list_may_mix_dtypes() -> None:
    """Of maps in several dtypes none loses precision."""
    maps, masks = make_image_list(1)
    maps[2], maps[3] = maps[2].half(), maps[3].bfloat16()
    expected = reference.aupimo(as_arrays([each.double() for each in maps]), as_arrays(masks), BOUNDS)
    scores = aupimo(maps, masks, fpr_bounds=BOUNDS, reduction="none")
    assert scores.dtype == torch.float64
    assert_scores(scores, expected, ROUNDING[torch.float64])


def test_scores_are_not_rescaled(images: tuple[Tensor, Tensor]) -> None:
    """Scores far outside [0, 1] are not squeezed through a sigmoid or clamped, which would tie them."""
    maps, masks = images
    shifted = aupimo(4 * maps + 1024, masks, fpr_bounds=BOUNDS, reduction="none")
    rounded = reference.aupimo(as_arrays(4 * maps + 1024), as_arrays(masks), BOUNDS)
    assert_scores(shifted, rounded)
    thresholds = pimo(4 * maps + 1024, masks, 2).thresholds
    normal = (4 * maps + 1024)[[0, 2, 4]]
    assert thresholds.tolist() == [float(normal.min()), float(normal.max())]


@pytest.mark.parametrize("shared_fpr", ["mean", "max"])
def test_many_more_pixels_than_are_kept(shared_fpr: str) -> None:
    """A batch of which only the highest normal scores are kept scores as if all of them were."""
    maps, masks = make_images(3, 6, size=(256, 256))
    bounds = (1e-4, 1e-3)
    scores = aupimo(maps, masks, fpr_bounds=bounds, reduction="none", shared_fpr=shared_fpr)
    # Independent of selection and table: the placement of each mask pixel among the sorted normal scores, no ties.
    normal = maps[[0, 2, 4, 5]].flatten(1).sort().values
    for number in (1, 3):
        in_mask = maps[number][masks[number]].expand(len(normal), -1).contiguous()
        fprs = (normal.shape[1] - torch.searchsorted(normal, in_mask)).double() / normal.shape[1]
        fpr = fprs.amax(0) if shared_fpr == "max" else fprs.mean(0)
        expected = (math.log(bounds[1]) - fpr.clamp(*bounds).log()).mean() / math.log(bounds[1] / bounds[0])
        assert float(scores[number]) == pytest.approx(float(expected), abs=1e-12)  # float64 sums of 5,000 terms


def test_maximum_that_cannot_be_resolved_asks_for_larger_images() -> None:
    """Where no image has enough pixels for the lower bound, more images would not help, and the warning says so."""
    maps, masks = make_images(0, 40, size=(10, 10))
    aupimo(maps, masks, fpr_bounds=(1e-3, 1e-1))  # 3,800 normal pixels are enough for the mean
    lowest = r"lowest shared FPR above 0 of any threshold is 0\.01, the lower bound is 0\.001"
    with pytest.warns(
        UserWarning, match=rf"{lowest}\. .* Use normal images of 1000 pixels or more, larger `fpr_bounds`"
    ):
        aupimo(maps, masks, fpr_bounds=(1e-3, 1e-1), shared_fpr="max")


@pytest.mark.parametrize("dtype", [object, "U1", "M8[s]"])
def test_arrays_of_something_else_are_refused(dtype: Any) -> None:
    """Arrays that hold no numbers are an error that names their dtype."""
    maps, masks = (part.numpy() for part in make_images(0, 3, size=(10, 10)))
    for arrays in ((maps.astype("i4").astype(dtype), masks), (maps, masks.astype("i4").astype(dtype))):
        with pytest.raises(TypeError, match="Expected maps and masks of numbers, but got an array of dtype"):
            aupimo(*arrays, fpr_bounds=BOUNDS)


def test_maximum_that_steps_over_the_bounds_names_small_images() -> None:
    """A small image may take the maximum from below the lower bound to above the upper one, without any tie."""
    maps, masks = make_image_list(0, [(2, 2), (20, 20), (20, 20)], anomalous=(2,))
    maps[1][0, 0] = 10.0
    maps[0][0, 0] = 9.0
    stepping = (
        r"no threshold lies between them, tied scores or small images make the shared FPR step from 0\.0025 to 0\.25"
    )
    with pytest.warns(UserWarning, match=rf"{stepping}\. .* Use normal images of 100 pixels or more"):
        aupimo(maps, masks, fpr_bounds=(1e-2, 1e-1), shared_fpr="max")


UNDEFINED = [
    ("there is no image. Give normal and anomalous images", ()),
    ("none of the 3 images is normal", (0, 1, 2)),
    ("none of the 3 images is anomalous", None),
]


@pytest.mark.parametrize("num_thresholds", [None, 7])
@pytest.mark.parametrize(("cause", "anomalous"), UNDEFINED, ids=[cause for cause, _ in UNDEFINED])
def test_undefined_scores_are_nan_with_one_warning(
    cause: str, anomalous: tuple[int, ...] | None, num_thresholds: int | None
) -> None:
    """Where a class is missing the score is NaN, and one warning names the cause."""
    maps, masks = make_images(0, 3, anomalous=anomalous or ())
    if anomalous == ():
        maps, masks = maps[:0], masks[:0]
    with pytest.warns(UserWarning, match=rf"AUPIMO is undefined \(NaN\): {cause}") as warnings:
        scores = aupimo(maps, masks, num_thresholds, (0.01, 0.3), reduction="none")
    assert len([warning for warning in warnings if "undefined" in str(warning.message)]) == 1
    assert scores.isnan().tolist() == [True] * len(maps)
    with pytest.warns(UserWarning, match=cause):
        assert math.isnan(aupimo(maps, masks, num_thresholds, (0.01, 0.3)))


@pytest.mark.parametrize("function", [aupimo, pimo])
@pytest.mark.parametrize("images", [([], []), (torch.zeros(0, 4, 4), torch.zeros(0, 4, 4))], ids=["list", "tensor"])
def test_no_images_at_all(function: Any, images: Any) -> None:
    """An empty list and an empty batch are undefined, not an error."""
    with pytest.warns(UserWarning, match="there is no image"):
        result = function(*images)
    parts = result if isinstance(result, tuple) else [result]
    assert all(bool(part.isnan().all()) for part in parts)


def test_empty_array_gives_an_array() -> None:
    """An empty batch of arrays gives arrays like any other."""
    empty = np.zeros((0, 4, 4), dtype=np.float32)
    with pytest.warns(UserWarning, match="there is no image"):
        scores = aupimo(empty, empty > 0, reduction="none")
    assert isinstance(scores, np.ndarray)
    assert scores.shape == (0,)


def test_exact_score_of_infinite_scores_is_defined_and_sampled_is_not() -> None:
    """A grid of thresholds has no even steps up to infinity; the exact score needs none."""
    maps, masks = make_images(0)
    maps[0, 0, 0] = math.inf
    expected = reference.aupimo(as_arrays(maps), as_arrays(masks), BOUNDS)
    assert_scores(aupimo(maps, masks, fpr_bounds=BOUNDS, reduction="none"), expected, ROUNDING[torch.float64])
    for function in (aupimo, pimo):
        with pytest.warns(UserWarning, match="is infinite"):
            sampled = function(maps, masks, 7)
        parts = sampled if isinstance(sampled, tuple) else [sampled]
        assert all(bool(part.isnan().all()) for part in parts)
