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


def highest_scores(scores: Tensor, region: Tensor, area: int) -> Tensor:
    """The scores (s,) of a map (H, W) that decide of a region (H, W) bool: its highest, as many as its saturation area.

    An area larger than the region is that of the region, which could not be found else.
    """
    return torch.topk(scores[region], min(area, int(region.sum()))).values


def areas_of_regions(normal: Sequence[Tensor], highest: Sequence[Tensor], fpr_limit: float) -> Tensor | None:
    """AU-sPRO of each region: (R,) float64; None if there is no region or no normal pixel.

    Args:
        normal: Scores of the normal pixels, in parts.
        highest: `highest_scores` of each region.
        fpr_limit: Limit of the FPR, in (0, 1].

    """
    ranks = rank(normal, highest)
    if not ranks.is_defined:
        return None
    shares = area_shares(ranks, fpr_limit)
    return torch.stack([shares[ranks.places_of(scores)].mean() for scores in highest])
