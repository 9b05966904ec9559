"""AU-sPRO: AUPRO of regions that count as found as soon as a part of them is, their saturation area.

At a threshold that finds `t` pixels of a region with saturation area `s`, its saturated overlap is `min(t, s) / s`. The
first `s` pixels that are found are those with the highest scores, so this is the overlap of these pixels alone, and
AU-sPRO is AUPRO of them. Regions may overlap; a pixel that is in none of them is normal.

Source: P. Bergmann et al., "Beyond Dents and Scratches: Logical Constraints in Unsupervised Anomaly Detection and
Localization", IJCV 130, 2022 (there sPRO).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from aupimo_torchmetrics._engine.ranking import area_shares, rank


def saturated_areas(
    maps: Sequence[Tensor], regions: Sequence[Tensor], areas: Sequence[Sequence[int]], fpr_limit: float
) -> Tensor | None:
    """AU-sPRO of each region: (R,) float64, in the order of the images; None if there is no region or no normal pixel.

    Args:
        maps: N maps (H, W).
        regions: The regions of each image (r, H, W) bool, none of them empty.
        areas: The saturation area of each region in pixels; one that is larger than its region is that of the region.
        fpr_limit: Limit of the FPR, in (0, 1].

    """
    normal = [scores[~masks.any(0)] for scores, masks in zip(maps, regions, strict=True)]
    highest = [
        torch.topk(scores[mask], min(area, int(mask.sum()))).values
        for scores, masks, of_image in zip(maps, regions, areas, strict=True)
        for mask, area in zip(masks, of_image, strict=True)
    ]
    ranks = rank(normal, highest)
    if not ranks.is_defined:
        return None
    shares = area_shares(ranks, fpr_limit)
    return torch.stack([shares[ranks.places_of(scores)].mean() for scores in highest])
