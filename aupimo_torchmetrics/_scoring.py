"""From what was kept of the images to named results, with a warning for whatever is undefined or uncertain.

Conventions: a *doubt* is the text of a warning, empty if there is nothing to say.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torchmetrics.utilities import rank_zero_warn

from aupimo_torchmetrics._engine import sweep as _sweep
from aupimo_torchmetrics._engine.kept import NO_ID, PixelScores, distinct_images, on_float64_device
from aupimo_torchmetrics._engine.regions import RegionScores, as_pixel_scores
from aupimo_torchmetrics._settings import SharedFPR
from aupimo_torchmetrics.results import AUPIMOResult, PIMOResult

MIN_SAMPLED_POINTS = 300
"""Fewer sampled thresholds between the bounds draw a warning, as in the official package."""
MAX_BOUND_ERROR = 0.01
"""Relative distance of a sampled from a wanted FPR bound that draws a warning, as in the official package."""


def aupimo_result(
    kept: PixelScores,
    fpr_bounds: tuple[float, float],
    num_thresholds: int | None = None,
    shared_fpr: SharedFPR = "mean",
) -> AUPIMOResult:
    """Score the images by what was kept of them; warn of what leaves a score undefined, or else uncertain."""
    kept, doubt_about_ids = _without_repeats(on_float64_device(kept))
    if num_thresholds is None:
        levels = _sweep.normal_levels(kept, fpr_bounds[1], shared_fpr)
        scoring, doubt = _score_exactly(kept, levels, fpr_bounds, shared_fpr)
    else:
        # The sampled threshold nearest to a bound may lie beyond it, by the bound itself at most. If all do, it is the
        # first of those with the lowest FPR: a mean rises with the next normal score, but a maximum may stay for long.
        down_to_fpr = 1.0 if shared_fpr == "max" else 2 * fpr_bounds[1]
        levels = _sweep.normal_levels(kept, down_to_fpr, shared_fpr)
        scoring, doubt = _score_by_samples(kept, levels, fpr_bounds, num_thresholds)
    _warn(doubt_about_ids, _why_undefined(kept, "AUPIMO") or doubt)
    return AUPIMOResult(
        aupimos=_sweep.per_image_scores(kept, scoring.table),
        fpr_bounds=fpr_bounds,
        threshold_bounds=scoring.threshold_bounds,
        num_thresholds=num_thresholds,
        num_points=None if scoring.samples is None else scoring.samples.num_points,
        shared_fpr=shared_fpr,
        image_classes=kept.is_anomalous.long(),
        image_ids=kept.image_ids if bool((kept.image_ids != NO_ID).any()) else None,
        _levels=levels,
        _scoring=scoring,
    )


def pimo_result(kept: PixelScores, num_thresholds: int | None = None, shared_fpr: SharedFPR = "mean") -> PIMOResult:
    """Draw the PIMO curves of all images, as far as normal scores were kept, in the dtype of the scores."""
    kept, doubt_about_ids = _without_repeats(on_float64_device(kept))
    levels = _sweep.normal_levels(kept, 1.0, shared_fpr)
    if num_thresholds is None:
        thresholds = _sweep.curve_thresholds(kept, levels, shared_fpr)
    else:
        thresholds = _sweep.sampled_thresholds(kept, num_thresholds)
    _warn(doubt_about_ids, _why_undefined(kept, "PIMO") or _doubt_infinite(thresholds))
    fpr, tprs = _sweep.shared_fpr_at(levels, thresholds), _sweep.per_image_tprs(kept, thresholds)
    return PIMOResult(thresholds, fpr.to(thresholds), tprs.to(thresholds))


def aupro_scores(regions: RegionScores, fpr_limit: float) -> Tensor:
    """Score each region (R,) float64 by AUPRO; warn of what leaves the scores undefined."""
    num_regions = len(regions.region_sizes)
    if num_regions == 0 or len(regions.normal) == 0:
        missing = "region in the masks" if num_regions == 0 else "pixel outside of the masks"
        _warn(f"AUPRO is undefined (NaN): there is no {missing}. Add images that have one.")
        return regions.normal.new_full((max(1, num_regions),), math.nan, dtype=torch.float64)
    kept = on_float64_device(as_pixel_scores(regions))
    levels = _sweep.normal_levels(kept, fpr_limit, "mean")
    return _sweep.per_image_scores(kept, _sweep.area_table(levels, fpr_limit))[1:].to(regions.normal.device)


def _score_exactly(
    kept: PixelScores, levels: _sweep.NormalLevels, fpr_bounds: tuple[float, float], shared_fpr: SharedFPR
) -> tuple[_sweep.Scoring, str]:
    """Score by the closed form, and say what is uncertain about it."""
    if len(levels.scores) == 0:
        return _sweep.undefined_scoring(levels), ""
    incomplete = _doubt_incomplete(kept, levels, fpr_bounds, needed_fpr=fpr_bounds[1])
    scoring = _sweep.exact_scoring(levels, fpr_bounds, is_incomplete=bool(incomplete))
    return scoring, incomplete or _doubt_unresolved(levels, fpr_bounds, shared_fpr)


def _score_by_samples(
    kept: PixelScores, levels: _sweep.NormalLevels, fpr_bounds: tuple[float, float], num_thresholds: int
) -> tuple[_sweep.Scoring, str]:
    """Score by the paper's protocol, and say what is uncertain about it."""
    thresholds = _sweep.sampled_thresholds(kept, num_thresholds)
    if bool(thresholds.isnan().any()):
        return _sweep.undefined_scoring(levels), _doubt_infinite(thresholds)
    scoring, samples = _sweep.sampled_scoring(levels, thresholds, fpr_bounds)
    incomplete = _doubt_incomplete(kept, levels, fpr_bounds, needed_fpr=2 * fpr_bounds[1])
    return scoring, incomplete or _doubt_samples(samples, fpr_bounds)


def _warn(*messages: str) -> None:
    """Warn of everything that there is something to say about."""
    for message in filter(None, messages):
        rank_zero_warn(message, UserWarning)


def _without_repeats(kept: PixelScores) -> tuple[PixelScores, str]:
    """Count images with one id once, and say if some ids have several contents."""
    kept, num_conflicts = distinct_images(kept)
    if not num_conflicts:
        return kept, ""
    return kept, (
        f"Images with different content were given under the same id, for {num_conflicts} of the `image_ids`; only "
        "the first image of each id counts. Ids must be unique in the whole data set, not in a batch."
    )


def _why_undefined(kept: PixelScores, name: str) -> str:
    """Say which class of images is missing, so that every score is NaN."""
    num_images, num_anomalous = len(kept.is_anomalous), int(kept.is_anomalous.sum())
    if num_images == 0:
        return (
            f"{name} is undefined (NaN): there is no image. "
            "Call `update` with normal and anomalous images before `compute`."
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


def _doubt_infinite(thresholds: Tensor) -> str:
    """Say if thresholds could not be sampled because a normal score is infinite."""
    if not bool(thresholds.isnan().any()):
        return ""
    return (
        "The result is undefined (NaN): `num_thresholds` samples thresholds between the lowest and the highest normal "
        "score, and one of these is infinite. Use `num_thresholds=None`, or find the cause of the infinite score."
    )


def _doubt_incomplete(
    kept: PixelScores, levels: _sweep.NormalLevels, fpr_bounds: tuple[float, float], needed_fpr: float
) -> str:
    """Say if normal scores that matter are not among those that were kept."""
    lowest_fpr = float(levels.fpr[0])
    if bool(kept.floor == -math.inf) or lowest_fpr >= needed_fpr:
        return ""
    missing = min(1.0, math.log(needed_fpr / lowest_fpr) / math.log(fpr_bounds[1] / fpr_bounds[0]))
    return (
        f"AUPIMO is a lower bound: the normal scores that were kept reach a shared FPR of {lowest_fpr:.3g} only, but "
        f"{needed_fpr:.3g} is needed. A score may be up to {missing:.3g} larger. "
        "Increase `normal_buffer`, or set it to None to keep every normal score."
    )


def _doubt_unresolved(levels: _sweep.NormalLevels, fpr_bounds: tuple[float, float], shared_fpr: SharedFPR) -> str:
    """Say if no threshold reaches a shared FPR that the integral needs."""
    lower, upper = fpr_bounds
    cause, remedy = "tied scores make", "more normal pixels"
    if shared_fpr == "max":  # more images would not help: a single one decides
        cause, remedy = "tied scores or small images make", f"normal images of {math.ceil(1 / lower)} pixels or more"
    lowest = float(levels.fpr[-1])
    if lowest > lower * (1 + 1e-9):
        fault = f"the lowest shared FPR above 0 of any threshold is {lowest:.3g}, the lower bound is {lower:g}"
    elif not bool(((levels.fpr >= lower) & (levels.fpr <= upper)).any()):
        below, above = float(levels.fpr[levels.fpr < lower].amax()), float(levels.fpr[levels.fpr > upper].amin())
        fault = f"no threshold lies between them, {cause} the shared FPR step from {below:.3g} to {above:.3g}"
    else:
        return ""
    return (
        f"The FPR bounds ({lower:g}, {upper:g}) cannot be resolved: {fault}. There the curve is interpolated. "
        f"Use {remedy}, larger `fpr_bounds`, or scores with fewer ties (no clamping, no half precision)."
    )


def _doubt_samples(samples: _sweep.Samples, fpr_bounds: tuple[float, float]) -> str:
    """Say, where the official package warns or fails, that thresholds are few or miss the FPR bounds."""
    reached = float(samples.fpr[samples.last]), float(samples.fpr[samples.first])
    missed = [
        f"{got:.3g} for {wanted:g}"
        for wanted, got in zip(fpr_bounds, reached, strict=True)
        if abs(got - wanted) > MAX_BOUND_ERROR * wanted
    ]
    faults = [f"the thresholds nearest to the FPR bounds reach {' and '.join(missed)}"] if missed else []
    if samples.num_points < MIN_SAMPLED_POINTS:
        faults.append(f"only {samples.num_points} thresholds lie between the FPR bounds")
    if not faults:
        return ""
    return (
        f"AUPIMO may be inaccurate: {', and '.join(faults)}. "
        "Increase `num_thresholds`, or set it to None for the exact score."
    )
