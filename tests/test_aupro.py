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


def test_perfect_and_useless_maps() -> None:
    """Regions above all other pixels score 1, below all of them 0."""
    _, masks = make_images(0)
    assert float(aupro(masks.float(), masks)) == 1
    assert float(aupro(-masks.float(), masks)) == 0


def test_kinds_of_input_agree() -> None:
    """Arrays give arrays, a channel axis and lists change nothing, and half precision is that of the rounded scores."""
    maps, masks = make_images(1)
    expected = aupro(maps.float(), masks, reduction="none")
    assert expected.dtype == torch.float32
    for preds, target in ((maps[:, None].float(), masks[:, None].long()), (list(maps.float()), list(masks.double()))):
        assert torch.equal(aupro(preds, target, reduction="none"), expected)
    array = aupro(maps.float().numpy(), masks.numpy(), reduction="none")
    assert array.tolist() == expected.tolist()
    assert torch.equal(aupro(maps.half(), masks), aupro(maps.half().float(), masks))


def test_undefined_scores_are_nan() -> None:
    """Without a region, or without a pixel outside of them, the score is NaN and a warning says why."""
    maps = torch.rand(2, 4, 4)
    with pytest.warns(UserWarning, match="no region in the masks"):
        assert aupro(maps, torch.zeros(2, 4, 4)).isnan()
    with pytest.warns(UserWarning, match="no pixel outside of the masks"):
        assert aupro(maps, torch.ones(2, 4, 4)).isnan()


def test_wrong_input_is_refused() -> None:
    """A wrong map, mask or limit raises an error that says what was expected."""
    maps, masks = make_images(0)
    for limit in (0, 1.1, float("nan")):
        with pytest.raises(ValueError, match=r"`fpr_limit` to be in \(0, 1\]"):
            aupro(maps, masks, limit)
    with pytest.raises(TypeError, match="`fpr_limit` to be a number, but got str"):
        aupro(maps, masks, "0.3")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="`reduction` to be"):
        aupro(maps, masks, reduction="sum")
    with pytest.raises(ValueError, match="to hold only 0 and 1"):
        aupro(maps, masks * 255)
    with pytest.raises(ValueError, match="NaN in 1 of the maps"):
        aupro(maps.where(torch.arange(len(maps))[:, None, None] > 0, torch.nan), masks)
    with pytest.raises(ValueError, match="same shape"):
        aupro(maps, masks[1:])
