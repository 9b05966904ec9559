"""The metrics beside AUPIMO: of all pixels of a category, and of its images by one score each.

All follow from ranks. Each score of a category is kept once, in 4 bytes (2 of 16-bit maps). With bounded memory a
histogram of a few megabytes is kept instead, from which the metrics are known up to certain bounds.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Collection, Sequence

import torch
from torch import Tensor

from aupimo_torchmetrics._engine.ranking import Ranks, rank
from aupimo_torchmetrics._pixel_scoring import (
    PixelScore,
    score_aupro,
    score_auroc,
    score_average_precision,
    score_f1_max,
)
from aupimo_torchmetrics._warnings import MORE_BINS, missing_images
from aupimo_torchmetrics.pixel_metrics import AUPRO, PixelAUROC

__all__ = ["IMAGE_METRICS", "PIXEL_METRICS", "PixelScorer", "memory_hint", "score_images"]

PIXEL_METRICS = ("auroc", "aupr", "f1_max", "aupro")
"""Metrics of all pixels, in the order of the report."""
IMAGE_METRICS = {"image_auroc": score_auroc, "image_aupr": score_average_precision, "image_f1_max": score_f1_max}
"""Metrics of one score an image, in the order of the report."""
NUM_BINS = 2**18
"""Bins of the histogram."""
BYTES_PER_PIXEL = 5
"""Memory that exact metrics need for a pixel at most."""


class PixelScorer:
    """Collects the pixels of one category.

    Args:
        names: Which of the metrics of all pixels to compute.
        fpr_limit: FPR up to which AUPRO is computed.
        bounded_memory: Whether to keep a histogram instead of all scores.
        ignore_index: Value of the target pixels that do not count.
        device: Where to compute.

    """

    def __init__(
        self,
        names: Collection[str],
        fpr_limit: float,
        *,
        bounded_memory: bool,
        ignore_index: int,
        device: torch.device,
    ) -> None:
        self._names = [name for name in PIXEL_METRICS if name in names]
        self._fpr_limit = fpr_limit
        self._is_binned = bounded_memory
        metric = AUPRO if "aupro" in names else PixelAUROC  # what they keep is enough for all, that of AUPRO is most
        self._metric = metric(num_bins=NUM_BINS if bounded_memory else None, ignore_index=ignore_index).to(device)

    def update(self, maps: list[Tensor], targets: list[Tensor]) -> None:
        """Add maps (H, W) and targets (H, W)."""
        if self._names:
            self._metric.update(maps, targets)

    def scores(self) -> dict[str, PixelScore]:
        """Return the metrics by name."""
        if not self._names:
            return {}
        ranks = self._metric._ranks()  # noqa: SLF001  of the same package
        scorers: dict[str, Callable[..., PixelScore]] = {
            "auroc": score_auroc,
            "aupr": score_average_precision,
            "f1_max": score_f1_max,
            "aupro": self._score_aupro,
        }
        scores = {name: scorers[name](ranks, is_binned=self._is_binned) for name in self._names}
        return {name: each._replace(warnings=_in_own_words(each.warnings)) for name, each in scores.items()}

    def _score_aupro(self, ranks: Ranks, *, is_binned: bool) -> PixelScore:
        """Compute AUPRO."""
        region_mean = self._metric._region_mean(ranks)  # noqa: SLF001  of the same package
        return score_aupro(ranks, self._fpr_limit, region_mean, is_binned=is_binned)


def _in_own_words(texts: Sequence[str]) -> tuple[str, ...]:
    """Advise a setting of an evaluation in place of one of a metric."""
    return tuple(text.replace(MORE_BINS, "Without `bounded_memory` the value is exact.") for text in texts)


def score_images(
    names: Collection[str], scores: Sequence[float], are_anomalous: Sequence[bool]
) -> dict[str, PixelScore]:
    """Compute metrics of one score an image.

    Args:
        names: Which of the metrics of images to compute.
        scores: Score of each image.
        are_anomalous: Class of each image.

    Returns:
        The metrics by name; NaN with a text if all images are of one class.

    """
    asked = [name for name in IMAGE_METRICS if name in names]
    by_class: dict[bool, list[float]] = {True: [], False: []}
    for score, is_anomalous in zip(scores, are_anomalous, strict=True):
        by_class[is_anomalous].append(score)
    normal, anomalous = (torch.tensor(by_class[key], dtype=torch.float64) for key in (False, True))
    if not (len(normal) and len(anomalous)):
        text = missing_images(", ".join(asked), num_normal=len(normal), num_anomalous=len(anomalous))
        return {name: PixelScore(math.nan, (math.nan, math.nan), (text,)) for name in asked}
    ranks = rank([normal], [anomalous])
    return {name: IMAGE_METRICS[name](ranks) for name in asked}


def memory_hint(category: str, num_pixels: int) -> str:
    """Say that the pixels of a category will need more than half of the memory; empty if they do not."""
    needed, memory = BYTES_PER_PIXEL * num_pixels, _physical_memory()
    if memory is None or needed <= memory / 2:
        return ""
    return (
        f"{category}: metrics of all pixels need {needed / 2**30:.1f} GiB, more than half of the memory. "
        "`bounded_memory=True` (--bounded-memory) needs a few megabytes, and gives certain bounds."
    )


def _physical_memory() -> int | None:
    """Bytes of memory of this machine, None if that is not known."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # Windows
        return None
