"""The connected regions of masks, and the scores inside and outside of them: the input of AUPRO and the pixel metrics.

Conventions: P pixels outside of all masks, R regions, S pixels in regions. Mask pixels that touch at an edge or at a
corner belong to the same region.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from aupimo_torchmetrics._engine.kept import NO_ID, PixelScores
from aupimo_torchmetrics._extras import require


class RegionScores(NamedTuple):
    """All scores of some images, split by the regions of their masks."""

    normal: Tensor
    """(P,) scores outside of all masks, of normal and of anomalous images."""
    in_regions: Tensor
    """(S,) scores in the regions, region after region."""
    region_sizes: Tensor
    """(R,) int64, number of pixels of each region."""


def split_by_regions(
    maps: Iterable[Tensor], masks: Iterable[Tensor], ignored: Iterable[Tensor | None] = itertools.repeat(None)
) -> RegionScores:
    """Split the scores of maps (H, W) by the regions of their masks (H, W) bool.

    Pixels that are `ignored`, (H, W) bool or None, lie in no mask, and do not count outside of masks either.
    """
    pairs = zip(maps, masks, strict=True)
    return join_regions([_split_one(*pair, each) for pair, each in zip(pairs, ignored, strict=False)])


def join_regions(parts: Sequence[RegionScores]) -> RegionScores:
    """Join the scores of several sets of images."""
    nothing = RegionScores(torch.empty(0), torch.empty(0), torch.empty(0, dtype=torch.int64))
    return RegionScores(*(torch.cat(pieces) for pieces in zip(*(parts or [nothing]), strict=True)))


def as_pixel_scores(regions: RegionScores) -> PixelScores:
    """Describe regions as images, so that the same code can score them.

    All pixels outside of masks form one normal image, which comes first. Each region is an anomalous image.
    """
    sizes = torch.cat([regions.region_sizes.new_tensor([len(regions.normal)]), regions.region_sizes])
    is_region = torch.ones_like(sizes, dtype=torch.bool)
    is_region[0] = False
    floor = regions.normal.new_tensor(-torch.inf)
    return PixelScores(
        normal_scores=regions.normal,
        mask_scores=regions.in_regions,
        num_kept=sizes,
        num_pixels=sizes,
        is_anomalous=is_region,
        image_ids=torch.full_like(sizes, NO_ID),
        floor=floor,
        normal_min=floor,
    )


def _split_one(anomaly_map: Tensor, mask: Tensor, ignored: Tensor | None) -> RegionScores:
    """Split the scores of one map (H, W) by the regions of its mask (H, W) bool."""
    outside = ~mask if ignored is None else ~(mask | ignored)
    if not bool(mask.any()):
        nothing = anomaly_map.new_empty(0)
        normal = anomaly_map.flatten() if ignored is None else anomaly_map[outside]
        return RegionScores(normal, nothing, nothing.new_empty(0, dtype=torch.int64))
    regions = _label(mask)[mask.cpu()].to(anomaly_map.device)
    by_region = regions.argsort(stable=True)
    return RegionScores(anomaly_map[outside], anomaly_map[mask][by_region], torch.bincount(regions)[1:])


def _label(mask: Tensor) -> Tensor:
    """Label each pixel of a mask (H, W) with the number of its region, from 1; 0 outside: (H, W) int64 on the CPU."""
    require("scipy", extra="stats", needed_by="AUPRO")
    from scipy import ndimage  # noqa: PLC0415

    labels, _ = ndimage.label(mask.cpu().numpy(), structure=torch.ones(3, 3).numpy())
    return torch.from_numpy(labels).long()
