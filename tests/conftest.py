"""Small seeded data, and the way from maps and masks to the engine, for all tests."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from hypothesis import settings
from numpy.typing import NDArray
from torch import Tensor

from aupimo_torchmetrics._engine.checks import Maps
from aupimo_torchmetrics._engine.kept import PixelScores
from aupimo_torchmetrics._engine.selection import keep_scores
from aupimo_torchmetrics._scoring import aupimo_result
from aupimo_torchmetrics.results import AUPIMOResult

settings.register_profile("long", max_examples=3000, deadline=None)
settings.register_profile("short", max_examples=60, deadline=None, derandomize=True)
settings.load_profile("short")


def make_image_list(
    seed: int,
    sizes: Sequence[tuple[int, int]] = ((12, 10), (9, 9), (5, 16), (12, 10), (7, 8)),
    anomalous: Sequence[int] = (1, 3),
    decimals: int | None = None,
) -> tuple[list[Tensor], list[Tensor]]:
    """Maps (H, W) of random float64 scores that float32 holds as well, and bool masks, empty but for the anomalous.

    Scores within a mask are higher on average. Rounding to a few `decimals` ties them.
    """
    random = torch.Generator().manual_seed(seed)
    maps, masks = [], []
    for number, (height, width) in enumerate(sizes):
        mask = torch.zeros(height, width, dtype=torch.bool)
        if number in anomalous:
            mask[height // 4 : height // 4 + max(1, height // 3), width // 3 : width // 3 + max(1, width // 4)] = True
        scores = torch.randn(height, width, generator=random) + 1.5 * mask
        if decimals is not None:
            scores = scores.mul(10**decimals).round().div(10**decimals)
        maps.append(scores.double())
        masks.append(mask)
    return maps, masks


def make_images(
    seed: int, num_images: int = 5, size: tuple[int, int] = (12, 10), **kwargs: Any
) -> tuple[Tensor, Tensor]:
    """Maps and masks (N, H, W) of one size, otherwise like `make_image_list`."""
    maps, masks = make_image_list(seed, [size] * num_images, **kwargs)
    return torch.stack(maps), torch.stack(masks)


def as_arrays(images: Maps) -> list[NDArray[Any]]:
    """One array (H, W) an image, for the reference."""
    return [image.numpy() for image in images]


def keep(
    preds: Maps,
    target: Maps,
    *,
    floor: float = -math.inf,
    normal_buffer: int | None = None,
    upper_fpr: float = 1.0,
    dtype: torch.dtype = torch.float64,
) -> PixelScores:
    """What `keep_scores` keeps of a batch; everything that can matter by default."""
    return keep_scores(
        preds,
        target,
        floor=torch.tensor(floor, dtype=dtype),
        normal_buffer=normal_buffer,
        upper_fpr=upper_fpr,
        validate_args=True,
    )


def score(
    preds: Maps,
    target: Maps,
    fpr_bounds: tuple[float, float],
    num_thresholds: int | None = None,
    dtype: torch.dtype = torch.float64,
    *,
    shared_fpr: str = "mean",
) -> AUPIMOResult:
    """Score images by the engine in the precision of `dtype`, without a metric."""
    return aupimo_result(keep(preds, target, dtype=dtype), fpr_bounds, num_thresholds, shared_fpr)
