"""The metrics beside AUPIMO: of all pixels of a category, and of its images by one score each.

Metrics of pixels keep each score of a category once, or with `num_bins` a histogram of a few megabytes, from which they
are known up to certain bounds.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torchmetrics import MetricCollection

from aupimo_torchmetrics._engine.saturation import areas_of_regions
from aupimo_torchmetrics._settings import MetricName, check_choice
from aupimo_torchmetrics._warnings import missing_image_scores, missing_pixels
from aupimo_torchmetrics.evaluate.reading import IGNORED, LoadedPair
from aupimo_torchmetrics.functional import pixel_auroc, pixel_average_precision, pixel_f1_max
from aupimo_torchmetrics.pixel_metrics import AUPRO, PixelAUROC, PixelAveragePrecision, PixelF1Max
from aupimo_torchmetrics.results import PixelResult

__all__ = ["OtherMetrics", "score_images"]

PIXEL_METRICS = ("auroc", "aupr", "f1_max", "aupro")
"""Metrics of all pixels, in the order of the table."""
SATURATED = "au_spro"
"""The metric of the regions of an annotation, which follows them."""
IMAGE_METRICS: dict[str, Callable[..., Any]] = {
    "image_auroc": pixel_auroc,
    "image_aupr": pixel_average_precision,
    "image_f1_max": partial(pixel_f1_max, return_threshold=True),
}
"""Metrics of one score an image, in the order of the table, and the threshold of what is reached at one."""


class OtherMetrics:
    """The metrics beside AUPIMO that were asked for, of images that come in batches.

    AU-sPRO keeps every normal score, and of each region the scores that decide of it.

    Args:
        names: Which of them, in any order; others are an error.
        fpr_limit: Limit of the FPR of AUPRO and AU-sPRO.
        num_bins: None for exact metrics of all pixels, or the bins of a histogram.
        device: Where to compute those of all pixels.

    """

    def __init__(self, names: Collection[str], fpr_limit: float, num_bins: int | None, device: torch.device) -> None:
        for name in names:
            check_choice("metrics", name, MetricName)
        of_pixels = {
            "auroc": PixelAUROC(num_bins=num_bins, ignore_index=IGNORED),
            "aupr": PixelAveragePrecision(num_bins=num_bins, ignore_index=IGNORED),
            "f1_max": PixelF1Max(num_bins=num_bins, ignore_index=IGNORED),
            "aupro": AUPRO(fpr_limit, num_bins=num_bins, ignore_index=IGNORED),
        }
        collection = MetricCollection({name: metric for name, metric in of_pixels.items() if name in names})
        self._of_pixels, self._device = collection.to(device), device
        self._names, self._fpr_limit = names, fpr_limit
        self._normal: list[Tensor] = []
        self._highest: list[Tensor] = []
        self.has_regions = SATURATED in names
        self.has_maps = len(collection) > 0 or self.has_regions

    def reset(self) -> None:
        """Forget all images."""
        self._of_pixels.reset()
        self._normal, self._highest = [], []

    def update(self, batch: Sequence[LoadedPair]) -> None:
        """Add some images."""
        if self._of_pixels:
            maps = [each.anomaly_map.to(self._device) for each in batch]
            self._of_pixels.update(maps, [each.target.to(self._device) for each in batch])
        for each in batch if self.has_regions else ():
            self._normal.append(each.anomaly_map[each.is_counted & ~each.mask])
            self._highest += each.highest_in_regions

    def scores(self, images: Sequence[Mapping[str, Any]]) -> dict[str, PixelResult]:
        """Return the metrics by name, with their warnings.

        Args:
            images: `image_score` and `is_anomalous` of each image, for those of images.

        """
        found = {}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for name in PIXEL_METRICS:
                if name in self._of_pixels:
                    found[name] = cast("PixelAUROC", self._of_pixels[name]).result()
        if self.has_regions:
            found[SATURATED] = self._overlap_of_regions()
        return found | score_images(self._names, images)

    def _overlap_of_regions(self) -> PixelResult:
        """AU-sPRO, the mean over the regions; NaN with a text if there is none, or no normal pixel."""
        found = areas_of_regions(self._normal, self._highest, self._fpr_limit)
        if found is None:
            num_normal = sum(map(len, self._normal))
            text = missing_pixels("AU-sPRO", num_mask=len(self._highest), num_normal=num_normal)
            return PixelResult(math.nan, (math.nan, math.nan), warnings=(text,))
        value = float(found.mean())
        return PixelResult(value, (value, value))


def score_images(names: Collection[str], images: Sequence[Mapping[str, Any]]) -> dict[str, PixelResult]:
    """Compute metrics of one score an image, which are those of pixels of maps of one pixel.

    Args:
        names: Which of the metrics of images to compute.
        images: `image_score` and `is_anomalous` of each image.

    Returns:
        The metrics by name; NaN with a text if all images are of one class, or the score of one is NaN.

    """
    asked = [name for name in IMAGE_METRICS if name in names]
    scores, are_anomalous = ([image[name] for image in images] for name in ("image_score", "is_anomalous"))
    text, num_missing = "", sum(map(math.isnan, scores))
    if len({*are_anomalous}) < 2:
        missing = "normal" if any(are_anomalous) else "anomalous"
        text = f"{', '.join(asked)}: undefined (NaN), as none of the {len(scores)} images is {missing}."
    elif num_missing:
        text = missing_image_scores(", ".join(asked), len(scores), num_missing)
    if text:
        return {name: PixelResult(math.nan, (math.nan, math.nan), warnings=(text,)) for name in asked}
    maps = np.asarray(scores, dtype=np.float64)[:, None, None]
    masks = np.asarray(are_anomalous)[:, None, None]
    found = {}
    for name in asked:
        value, threshold = [*map(float, np.ravel(IMAGE_METRICS[name](maps, masks))), math.nan][:2]
        found[name] = PixelResult(value, (value, value), threshold)
    return found
