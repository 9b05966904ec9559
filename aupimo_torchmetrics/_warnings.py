"""From facts to texts: what makes a score undefined or uncertain, and what to do about it.

Conventions: a function takes facts from the engine and returns the text of a warning, or "" if none is needed. Every
text begins with AUPIMO, or with the name of the metric that it is of, so that all can be filtered.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import torch
from torchmetrics.utilities import rank_zero_warn

from aupimo_torchmetrics._engine import decision, sweep
from aupimo_torchmetrics._engine.kept import PixelScores
from aupimo_torchmetrics._engine.sweep import NormalLevels, Samples
from aupimo_torchmetrics._settings import SharedFPR

MIN_SAMPLED_POINTS = 300
"""Fewer sampled thresholds between the bounds cause a warning, as in the official package."""
MAX_BOUND_ERROR = 0.01
"""A larger relative distance of a sampled FPR to its bound causes a warning, as in the official package."""

MIN_CARRYING = 20
"""Fewer normal images that carry the false positives of a threshold cause a warning."""

MAX_UNCERTAINTY = 1e-3
"""A larger distance between the certain bounds of a pixel metric causes a warning."""

MORE_BINS = "Set `num_bins=None` for the exact value, or use more bins."
"""What a metric advises to narrow its bounds."""


def warn(texts: Iterable[str]) -> None:
    """Issue a `UserWarning` for each text, on the first process only."""
    for text in texts:
        rank_zero_warn(text, UserWarning)


def repeated_ids(num_conflicts: int) -> str:
    """Say that images with different content have the same id."""
    if num_conflicts == 0:
        return ""
    return (
        f"AUPIMO got images with different content under the same id, for {num_conflicts} of the `image_ids`; "
        "only the first image of each id counts. Ids must be unique in the whole data set, not in a batch."
    )


def ignored_images(name: str, num_dropped: int, ignore_index: int | None) -> str:
    """Say that images were dropped because every pixel of theirs is ignored."""
    return (
        f"{name} does not count every image. {num_dropped} of the images were skipped, with their ids: every pixel of "
        f"their `target` is {ignore_index}, which is `ignore_index`. Remove these images from the data, or correct "
        "their masks."
    )


def mixed_ids() -> str:
    """Say that some processes gave integers as ids and others texts."""
    return (
        "AUPIMO does not use all ids. Some processes gave integers as `image_ids` and others texts: images with a text "
        "as id count as images without an id. Give ids of one kind on all processes."
    )


def missing_class(name: str, num_images: int, num_anomalous: int) -> str:
    """Say which class of images is missing, so that every score is NaN."""
    if num_images == 0:
        return (
            f"{name} is undefined (NaN): there is no image. Give normal and anomalous images; a metric takes them by "
            "`update`, before `compute`."
        )
    if num_anomalous == num_images:
        return (
            f"{name} is undefined (NaN): none of the {num_images} images is normal, and false positives are counted on "
            "normal images. Add images whose masks are empty."
        )
    if num_anomalous == 0:
        return (
            f"{name} is undefined (NaN): none of the {num_images} images is anomalous. "
            "Add images whose masks are not empty."
        )
    return ""


def missing_image_scores(name: str, num_images: int, num_missing: int) -> str:
    """Say that some images have no score by which they could be ranked."""
    return (
        f"{name} is undefined (NaN): the score of {num_missing} of the {num_images} images is NaN, as the mean of +inf "
        "and -inf is. Find the cause of infinite scores, or rank images by the highest one, `image_score='max'`."
    )


def dropped_scores() -> str:
    """Say that there are normal images, but none of their scores."""
    return (
        "AUPIMO is undefined (NaN): all normal scores that were kept are of images whose id was seen before, and which "
        "do not count. Give unique `image_ids`, or set `normal_buffer=None` to keep every normal score."
    )


def missing_pixels(name: str, *, num_mask: int, num_normal: int) -> str:
    """Say that there is no pixel in masks, or none outside of them, so that a pixel metric is NaN."""
    if num_mask > 0 and num_normal > 0:
        return ""
    part = "region" if name in {"AUPRO", "AU-sPRO"} else "pixel"
    missing = f"{part} in the masks" if num_mask == 0 else "pixel outside of the masks"
    return f"{name} is undefined (NaN): there is no {missing}. Add images that have one."


def wide_bounds(name: str, low: float, high: float) -> str:
    """Say that a histogram leaves a pixel metric uncertain."""
    if high - low <= MAX_UNCERTAINTY:
        return ""
    return (
        f"{name} is uncertain: many scores share a bin, so it lies anywhere between {low:.6f} and {high:.6f}. "
        f"{MORE_BINS} Scores with a large offset need most: subtract it."
    )


def infinite_scores(name: str) -> str:
    """Say that thresholds cannot be sampled because a normal score is infinite."""
    return (
        f"{name} is undefined (NaN): `num_thresholds` samples thresholds between the lowest and the "
        "highest normal score, and one of these is infinite. Use `num_thresholds=None`, or find the cause of the "
        "infinite score."
    )


def batch_scores(text: str) -> str:
    """Say once, for all batches, that `forward` scores each batch alone, and what was wrong with the first of them."""
    return (
        f"{text} This is of a single batch: `forward` scores each batch alone, and most have images of one class, or "
        "too few pixels. The mean of such values is not the score of the data. Call `update`, and log the metric "
        'object: `self.aupimo.update(maps, masks)` and `self.log("val/aupimo", self.aupimo)`. Further batches are not '
        "mentioned."
    )


def without_score(undefined: Iterable[tuple[str, str]], num_metrics: int, reason: str) -> str:
    """Say which categories have no score.

    Args:
        undefined: Category and name of each metric without a score.
        num_metrics: Number of metrics of a category.
        reason: Why the first of them has none.

    """
    metrics: dict[str, list[str]] = {}
    for category, name in undefined:
        metrics.setdefault(category, []).append(name)
    shown = [name if len(of) == num_metrics else f"{name} ({', '.join(of)})" for name, of in metrics.items()]
    return (
        f"PerCategory has no score (NaN) for {', '.join(shown)}; `mean/...` is the mean over the categories with a "
        f"score. Of {next(iter(metrics))}: {reason}"
    )


def of_categories(texts: Mapping[tuple[str, str], Sequence[str]]) -> list[str]:
    """Join the warnings of the same metrics of several categories: the first of them, and of which categories it is.

    Args:
        texts: Those of each category and name of a metric.

    """
    joined: dict[tuple[str, ...], tuple[str, list[str]]] = {}
    for (category, name), of_metric in texts.items():
        for text in of_metric:
            joined.setdefault((name, *text.split()[:3]), (text, []))[1].append(category)
    return [
        f"{text} This is of {first}{', and similarly of ' if others else ''}{', '.join(others)}."
        for text, (first, *others) in joined.values()
    ]


def lower_bound(lowest_fpr: float, needed_fpr: float, max_missing: float) -> str:
    """Say up to which shared FPR normal scores were kept, and by how much a score may be too low."""
    if max_missing == 0:
        return ""
    return (
        f"AUPIMO is a lower bound: the normal scores that were kept reach a shared FPR of {lowest_fpr:.3g} only, but "
        f"{needed_fpr:.3g} is needed. A score may be up to {_rounded_up(max_missing):.3g} larger, and thresholds for a "
        "larger FPR are not known (NaN). Increase `normal_buffer`, or set it to None to keep every normal score."
    )


def unresolved_bounds(levels: NormalLevels, fpr_bounds: tuple[float, float], shared_fpr: SharedFPR) -> str:
    """Say that no threshold has a shared FPR above 0 and down to the lower bound, or none between the bounds."""
    if sweep.resolves(levels, fpr_bounds):
        return ""
    lower, upper = fpr_bounds
    cause, remedy, larger = "tied scores make", "more normal pixels", "larger `fpr_bounds`"
    if shared_fpr == "max":  # more images do not help: a single one decides
        num_pixels = math.ceil(1 / min(lower, upper - lower))  # a step below the lower bound, and one between the two
        cause, remedy = "tied scores or small images make", f"normal images of {num_pixels} pixels or more"
    lowest = float(levels.fpr[-1])
    if lowest > lower:
        fact = f"the lowest shared FPR above 0 of any threshold is {lowest:.3g}, the lower bound is {lower:g}"
        if lowest < 0.1:  # a score that rests on fewer than ten normal pixels is a matter of chance
            larger = f"larger `fpr_bounds`, best from {10 * lowest:.1g} on"
    else:
        below = float(torch.where(levels.fpr < lower, levels.fpr, 0).amax())
        above = float(torch.where(levels.fpr > upper, levels.fpr, 1).amin())
        fact = f"no threshold lies between them, {cause} the shared FPR step from {below:.3g} to {above:.3g}"
    return (
        f"AUPIMO is uncertain. The FPR bounds ({lower:g}, {upper:g}) cannot be resolved: {fact}. There the curve is "
        f"interpolated. Use {remedy}, {larger}, or scores with fewer ties (no clamping, no half precision)."
    )


def few_samples(samples: Samples, fpr_bounds: tuple[float, float]) -> str:
    """Say that sampled thresholds are few or miss the FPR bounds, where the official package warns or fails."""
    reached = float(samples.fpr[samples.last]), float(samples.fpr[samples.first])
    pairs = [*zip(fpr_bounds, reached, strict=True)]
    missed = [f"{got:.3g} for {wanted:g}" for wanted, got in pairs if abs(got - wanted) > MAX_BOUND_ERROR * wanted]
    facts = [f"the thresholds nearest to the FPR bounds reach {' and '.join(missed)}"] if missed else []
    if samples.num_points < MIN_SAMPLED_POINTS:
        facts.append(f"only {samples.num_points} thresholds lie between the FPR bounds")
    remedy = "Increase `num_thresholds`, or set it to None for the exact score."
    return f"AUPIMO may be inaccurate: {', and '.join(facts)}. {remedy}" if facts else ""


def unknown_thresholds() -> str:
    """Say that the scores are right, but that the threshold at an FPR bound is not known."""
    return (
        "AUPIMO does not know the threshold at an FPR bound (NaN in `threshold_bounds`), as not all normal scores of "
        "that shared FPR were kept. The scores are not affected. Set `normal_buffer=None` to keep every normal score."
    )


def few_carry(kept: PixelScores, threshold: float, shared_fpr: SharedFPR) -> str:
    """Say that few normal images have most false positives of a threshold. The maximum is always that of one image."""
    num_carrying = decision.num_carrying(kept, threshold)
    if shared_fpr == "max" or not round(num_carrying, 6) < MIN_CARRYING:  # false for NaN
        return ""
    return (
        f"AUPIMO knows the shared FPR at the threshold {threshold:.6g} from few images: it varies as that of "
        f"{num_carrying:.1f} images would, of {int((~kept.is_anomalous).sum())} normal ones, and on other images it "
        "may be several times as large. Use more normal images, and look at those with the most false positives."
    )


def unknown_rates(floor: float) -> str:
    """Say that FPR and TPRs of a threshold are not known."""
    return (
        f"FPR and TPRs are not known (NaN) at thresholds below {floor:g}: scores below it were not kept. Construct the "
        "metric with `normal_buffer=None` to keep them. Alarms are known at every threshold."
    )


def _rounded_up(value: float) -> float:
    """Round up to three significant digits, so that a warning never understates a number."""
    digits = 2 - math.floor(math.log10(value))
    return math.ceil(value * 10.0**digits) / 10.0**digits
