"""The metrics beside AUPIMO: of all pixels of a category, and of its images by one score each.

Metrics of pixels keep each score of a category once, or with `num_bins` a histogram of a few megabytes, from which they
are known up to certain bounds.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor
from torchmetrics import MetricCollection

from aupimo_torchmetrics._errors import SettingError
from aupimo_torchmetrics._settings import MetricName, check_choice
from aupimo_torchmetrics.functional import pixel_auroc, pixel_average_precision, pixel_f1_max
from aupimo_torchmetrics.pixel_metrics import AUPRO, PixelAUROC, PixelAveragePrecision, PixelF1Max

__all__ = ["OtherScore", "mean_of_top", "pixel_metrics", "score_images", "score_pixels", "top_share_of"]

PIXEL_METRICS = ("auroc", "aupr", "f1_max", "aupro")
"""Metrics of all pixels, in the order of the table."""
IMAGE_METRICS: dict[str, Callable[..., Any]] = {
    "image_auroc": pixel_auroc,
    "image_aupr": pixel_average_precision,
    "image_f1_max": partial(pixel_f1_max, return_threshold=True),
}
"""Metrics of one score an image, in the order of the table, and the threshold of what is reached at one."""


class OtherScore(NamedTuple):
    """A metric beside AUPIMO, with everything that is known of it.

    Example:
        >>> from aupimo_torchmetrics.evaluate.other_metrics import OtherScore
        >>> OtherScore(0.75, bounds=(0.7, 0.8)).value
        0.75

    """

    value: float
    """NaN if undefined."""
    bounds: tuple[float, float]
    """The exact value lies between these; both are the value if it is exact."""
    threshold: float = math.nan
    """Threshold at which the value is reached, if it is reached at one."""
    warnings: tuple[str, ...] = ()


def pixel_metrics(
    names: Collection[str], fpr_limit: float, num_bins: int | None, ignore_index: int
) -> MetricCollection:
    """Make those of the metrics of all pixels that have a name; raise if a name is none of a metric."""
    for name in names:
        check_choice("metrics", name, MetricName)
    collection = {
        "auroc": PixelAUROC(num_bins=num_bins, ignore_index=ignore_index),
        "aupr": PixelAveragePrecision(num_bins=num_bins, ignore_index=ignore_index),
        "f1_max": PixelF1Max(num_bins=num_bins, ignore_index=ignore_index),
        "aupro": AUPRO(fpr_limit, num_bins=num_bins, ignore_index=ignore_index),
    }
    return MetricCollection({name: metric for name, metric in collection.items() if name in names})


def score_pixels(metrics: MetricCollection) -> dict[str, OtherScore]:
    """Return the metrics of all pixels by name."""
    results = {name: cast("PixelAUROC", metrics[name]).result() for name in PIXEL_METRICS if name in metrics}
    return {name: OtherScore(each.value, each.bounds, each.threshold, each.warnings) for name, each in results.items()}


def top_share_of(image_score: str) -> float:
    """Return the share of the highest pixels whose mean is the score of an image: 0, for the highest alone, to 1.

    Raises:
        ValueError: If it is none of `"max"`, `"mean"` and a share such as `"top_1%"`.

    """
    found = re.fullmatch(r"top_(\d+(?:\.\d+)?)%", image_score)
    share = {"max": 0.0, "mean": 1.0}.get(image_score, float(found[1]) / 100 if found else math.nan)
    if not 0 <= share <= 1:
        raise SettingError(
            f"Expected `image_score` to be 'max', 'mean' or a share as 'top_1%', but got {image_score!r}."
        )
    return share


def mean_of_top(scores: Tensor, share: float) -> float:
    """Mean of a share of the scores of a map, the highest ones: rounded down to whole pixels, at least one."""
    number = max(1, math.floor(scores.numel() * share + 1e-9))
    return float(torch.topk(scores.flatten(), number, sorted=False).values.double().mean())


def score_images(names: Collection[str], images: Sequence[Mapping[str, Any]]) -> dict[str, OtherScore]:
    """Compute metrics of one score an image, which are those of pixels of maps of one pixel.

    Args:
        names: Which of the metrics of images to compute.
        images: `image_score` and `is_anomalous` of each image.

    Returns:
        The metrics by name; NaN with a text if all images are of one class.

    """
    asked = [name for name in IMAGE_METRICS if name in names]
    scores, are_anomalous = ([image[name] for image in images] for name in ("image_score", "is_anomalous"))
    if len({*are_anomalous}) < 2:
        missing = "normal" if any(are_anomalous) else "anomalous"
        text = f"{', '.join(asked)}: undefined (NaN), as none of the {len(scores)} images is {missing}."
        return {name: OtherScore(math.nan, (math.nan, math.nan), warnings=(text,)) for name in asked}
    maps = np.asarray(scores, dtype=np.float64)[:, None, None]
    masks = np.asarray(are_anomalous)[:, None, None]
    found = {}
    for name in asked:
        value, threshold = [*map(float, np.ravel(IMAGE_METRICS[name](maps, masks))), math.nan][:2]
        found[name] = OtherScore(value, (value, value), threshold)
    return found
