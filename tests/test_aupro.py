"""AUPRO is the area under the curve of the recall in each region, by the definition."""

import pytest
import reference
import torch
from helpers import as_arrays, make_image_list, make_images

from aupimo_torchmetrics.functional import aupro

EXACT = 1e-12
"""Sums of float64 in another order."""


def with_regions(masks: list[torch.Tensor]) -> list[torch.Tensor]:
    """Add to the masks of anomalous images a region at a corner of theirs, and two that lie apart."""
    more = []
    for mask in masks:
        changed = mask.clone()
        if mask.any():
            rows, columns = mask.nonzero().amax(0).tolist()
            changed[min(rows + 1, mask.shape[0] - 1), min(columns + 1, mask.shape[1] - 1)] = True
            changed[0, 0] = True
            changed[-1, :2] = True
        more.append(changed)
    return more


@pytest.mark.parametrize("fpr_limit", [0.03, 0.3, 1])
@pytest.mark.parametrize("decimals", [None, 1, 0])
@pytest.mark.parametrize("seed", range(3))
def test_scores_are_those_of_the_definition(seed: int, decimals: int | None, fpr_limit: float) -> None:
    """Each region's score is the area under its curve, whatever the ties, the sizes of the images and the limit."""
    maps, masks = make_image_list(seed, decimals=decimals)
    masks = with_regions(masks)
    expected = reference.aupro(as_arrays(maps), as_arrays(masks), fpr_limit)
    assert len(expected) > 4
    scores = aupro(maps, masks, fpr_limit, reduction="none")
    assert scores.dtype == torch.float64
    assert scores.tolist() == pytest.approx(expected, abs=EXACT)
    assert float(aupro(maps, masks, fpr_limit)) == pytest.approx(sum(expected) / len(expected), abs=EXACT)


def test_regions_hang_together_by_corners() -> None:
    """Pixels that touch at a corner only are one region, and a gap of one pixel separates two."""
    maps, masks = torch.rand(1, 6, 6), torch.zeros(1, 6, 6)
    masks[0, 0, 0] = masks[0, 1, 1] = masks[0, 2, 0] = masks[0, 4, 0] = 1
    assert aupro(maps, masks, reduction="none").shape == (2,)


def test_regions_side_by_side_keep_their_scores() -> None:
    """Each region has its own pixels, though the rows of one run through the other."""
    maps, masks = torch.zeros(1, 6, 9), torch.zeros(1, 6, 9, dtype=torch.bool)
    masks[0, 1:5, 1:3] = masks[0, 1:5, 6:8] = True
    maps[0, :, 6:8] = 1  # the right one is found, and the left one is not
    maps[0, 0, 6:8] = maps[0, 5, 6:8] = -1
    maps[0, :, 1:3] = -2
    assert aupro(maps, masks, reduction="none").tolist() == [0, 1]


def test_constant_maps_score_half_the_limit() -> None:
    """A model that says the same of every pixel has the curve of chance, a straight line."""
    _, masks = make_images(0)
    assert float(aupro(torch.zeros(masks.shape), masks, 0.3)) == pytest.approx(0.15)


def test_wrong_input_is_refused() -> None:
    """A wrong limit or reduction raises an error that says what was expected."""
    maps, masks = make_images(0)
    for limit in (0, 1.1, float("nan")):
        with pytest.raises(ValueError, match=r"`fpr_limit` to be in \(0, 1\]"):
            aupro(maps, masks, limit)
    with pytest.raises(TypeError, match="`fpr_limit` to be a number, but got str"):
        aupro(maps, masks, "0.3")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="`reduction` to be"):
        aupro(maps, masks, reduction="sum")


def test_each_region_is_undefined_without_normal_pixels() -> None:
    """Scores of regions are NaN, one for each, or one if there is no region."""
    maps, masks = torch.rand(2, 4, 4), torch.ones(2, 4, 4)
    for target, num_scores in ((masks, 2), (masks * 0, 1)):
        with pytest.warns(UserWarning, match="AUPRO is undefined"):
            scores = aupro(maps, target, reduction="none")
        assert scores.shape == (num_scores,)
        assert scores.isnan().all()
