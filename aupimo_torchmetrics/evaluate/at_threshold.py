"""What a threshold does to the images of a category, counted over all of their pixels.

A pixel is called anomalous iff its score is at least the threshold, and an image raises an alarm iff one of its pixels
is. SegF1 and ClassF1 are those of MVTec AD 2.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from aupimo_torchmetrics.evaluate.reading import LoadedPair

__all__ = ["RATES", "count_pixels", "rates_at", "threshold_text", "unit_warning"]

RATES = ("seg_f1", "precision", "recall", "fpr", "class_f1")
"""Rates at a threshold, in the order of the table."""


def count_pixels(loaded: LoadedPair, threshold: float) -> dict[str, Any]:
    """Count what a threshold finds in an image.

    Returns:
        `alarm`; `false_pixels`, outside of the mask; `found_pixels` and `found_share`, in the mask, the share NaN for a
        normal image. Pixels that are ignored do not count.

    """
    is_found = (loaded.anomaly_map >= threshold) & loaded.is_counted
    num_found, num_masked = int((is_found & loaded.mask).sum()), int(loaded.mask.sum())
    return {
        "alarm": bool(is_found.any()),
        "false_pixels": int((is_found & ~loaded.mask).sum()),
        "found_pixels": num_found,
        "found_share": _ratio(num_found, num_masked),
    }


def rates_at(threshold: float, images: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Rates of a category from the counts of its images.

    Returns:
        `threshold`; of all pixels of the category `seg_f1`, `precision`, `recall`, and `fpr`, the share of the pixels
        outside of masks that are called anomalous; of its images `class_f1`, `num_normal_alarms` and
        `num_anomalous_alarms`. A ratio of nothing is NaN.

    """
    num_found, num_false, num_masked, num_pixels = (
        sum(int(image[name]) for image in images)
        for name in ("found_pixels", "false_pixels", "mask_pixels", "num_pixels")
    )
    num_anomalous = sum(bool(image["is_anomalous"]) for image in images)
    num_alarms = sum(image["alarm"] for image in images)
    num_right = sum(image["alarm"] and bool(image["is_anomalous"]) for image in images)
    return {
        "threshold": threshold,
        "seg_f1": _ratio(2 * num_found, num_found + num_false + num_masked),
        "precision": _ratio(num_found, num_found + num_false),
        "recall": _ratio(num_found, num_masked),
        "fpr": _ratio(num_false, num_pixels - num_masked),
        "class_f1": _ratio(2 * num_right, num_alarms + num_anomalous),
        "num_normal_alarms": num_alarms - num_right,
        "num_anomalous_alarms": num_right,
    }


def unit_warning(threshold: float, num_found: int, num_pixels: int, highest: float) -> str:
    """Say that a threshold parts nothing: no pixel reaches it, or every pixel does; empty if it does."""
    if 0 < num_found < num_pixels:
        return ""
    which, least = "Every pixel" if num_found else "No pixel", threshold_text(threshold)
    return (
        f"{which} reaches the threshold {least}; the highest score is {threshold_text(highest)}. Unless this is "
        "expected, it is a threshold of other maps, of another model, or in another unit."
    )


def threshold_text(threshold: float) -> str:
    """Write a threshold with as many digits as tell it from all other numbers in float32, in which scores are."""
    return str(np.float32(threshold)).removesuffix(".0")


def _ratio(part: int, whole: int) -> float:
    """Part of a whole; NaN of nothing."""
    return part / whole if whole else math.nan
