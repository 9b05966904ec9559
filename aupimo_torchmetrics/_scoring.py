"""From what was kept of the images to scores and curves, with the texts of warnings.

No function here warns. The texts travel with the numbers, and the caller that gives these to the user warns once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from aupimo_torchmetrics import _warnings
from aupimo_torchmetrics._engine import sampled, sweep
from aupimo_torchmetrics._engine.image_ids import rank
from aupimo_torchmetrics._engine.kept import NO_ID, PixelScores, drop_repeats, on_float64_device
from aupimo_torchmetrics._settings import SharedFPR


class Images(NamedTuple):
    """Distinct images in the order of their ids."""

    kept: PixelScores
    paths: list[str] | None
    """Ids that are texts, empty for an image without an id; None if no image has a text as id."""
    warnings: tuple[str, ...]


class ScoredImages(NamedTuple):
    """Distinct images and their scores, with everything that the scores follow from."""

    kept: PixelScores
    levels: sweep.NormalLevels
    scoring: sweep.Scoring
    aupimos: Tensor
    """(N,) float64, NaN for a normal image."""
    undefined: tuple[str, ...]
    """Why there is no score."""
    uncertain: tuple[str, ...]
    """Why thresholds, and the scores at them, are not certain."""

    @property
    def warnings(self) -> tuple[str, ...]:
        """All texts."""
        return (*self.undefined, *self.uncertain)

    @property
    def table(self) -> sweep.PixelTable:
        """What a pixel contributes to the score of its image."""
        return self.scoring.table


class Curves(NamedTuple):
    """PIMO curves of all images, in the dtype of the scores."""

    thresholds: Tensor
    """(K,) ascending."""
    shared_fpr: Tensor
    """(K,)"""
    per_image_tprs: Tensor
    """(N, K), NaN for a normal image."""


def distinct_images(kept: PixelScores, texts: Sequence[str] | None = None) -> Images:
    """Keep the first image of each id, in the order of the ids; images without an id follow in their order.

    Args:
        kept: What was kept of N images, with their integer ids.
        texts: Ids (N,) that are texts, empty for an image without an id. None if there are none.

    """
    kept = on_float64_device(kept)
    mixed = ""
    if texts is not None and bool((kept.image_ids != NO_ID).any()):
        texts, mixed = None, _warnings.mixed_ids()
    names: list[str] = []
    if texts is not None:
        ranks, names = rank(texts)
        kept = kept._replace(image_ids=ranks.to(kept.floor.device))
    kept, num_conflicts = drop_repeats(kept)
    paths = None
    if texts is not None:
        paths = [names[index] if index != NO_ID else "" for index in kept.image_ids.tolist()]
        kept = kept._replace(image_ids=torch.full_like(kept.image_ids, NO_ID))
    return Images(kept, paths, _texts(mixed, _warnings.repeated_ids(num_conflicts)))


def score_images(
    kept: PixelScores, fpr_bounds: tuple[float, float], num_thresholds: int | None, shared_fpr: SharedFPR
) -> ScoredImages:
    """Score distinct images from what was kept of them."""
    if num_thresholds is None:
        levels = sweep.normal_levels(kept, fpr_bounds[1], shared_fpr)
        scoring, text = _score_exactly(kept, levels, fpr_bounds, shared_fpr)
    else:
        # The sampled threshold nearest to the upper bound U may have a shared FPR above U, but of at most 2 U. Only if
        # all have more, it is the lowest of those with the lowest FPR. A mean rises at the next normal score, so few
        # levels tell which one that is; a maximum may be the same at any number of scores.
        levels = sweep.normal_levels(kept, 1.0 if shared_fpr == "max" else 2 * fpr_bounds[1], shared_fpr)
        scoring, text = _score_by_samples(kept, levels, fpr_bounds, num_thresholds, shared_fpr)
    undefined = _warnings.missing_class("AUPIMO", len(kept.is_anomalous), int(kept.is_anomalous.sum()))
    aupimos = sweep.per_image_scores(kept, scoring.table)
    return ScoredImages(kept, levels, scoring, aupimos, _texts(undefined), _texts(text))


def draw_curves(kept: PixelScores, num_thresholds: int | None, shared_fpr: SharedFPR) -> tuple[Curves, tuple[str, ...]]:
    """Draw the PIMO curves of distinct images, as far as normal scores were kept; with the texts of warnings."""
    levels = sweep.normal_levels(kept, 1.0, shared_fpr)
    if num_thresholds is None:
        thresholds = sweep.curve_thresholds(kept, levels, shared_fpr)
    else:
        thresholds = sampled.sampled_thresholds(kept, num_thresholds)
    undefined = _warnings.missing_class("PIMO", len(kept.is_anomalous), int(kept.is_anomalous.sum()))
    infinite = _warnings.infinite_scores("PIMO") if bool(thresholds.isnan().any()) else ""
    fpr, tprs = sweep.shared_fpr_at(levels, thresholds), sweep.per_image_tprs(kept, thresholds)
    return Curves(thresholds, fpr.to(thresholds), tprs.to(thresholds)), _texts(undefined or infinite)


def _score_exactly(
    kept: PixelScores, levels: sweep.NormalLevels, fpr_bounds: tuple[float, float], shared_fpr: SharedFPR
) -> tuple[sweep.Scoring, str]:
    """Score by the closed form; with the text of a warning, or an empty one."""
    if len(levels.scores) == 0:
        return sweep.undefined_scoring(levels), ""
    scoring = sweep.exact_scoring(levels, fpr_bounds)
    incomplete = _warnings.lower_bound(float(levels.fpr[0]), fpr_bounds[1], scoring.max_missing)
    if incomplete or sweep.resolves(levels, fpr_bounds):
        return scoring, incomplete
    better_bounds = sweep.resolvable_bounds([sweep.normal_levels(kept, 1.0, shared_fpr)], fpr_bounds)
    return scoring, _warnings.unresolved_bounds(levels, fpr_bounds, shared_fpr, better_bounds)


def _score_by_samples(
    kept: PixelScores,
    levels: sweep.NormalLevels,
    fpr_bounds: tuple[float, float],
    num_thresholds: int,
    shared_fpr: SharedFPR,
) -> tuple[sweep.Scoring, str]:
    """Score by the paper's protocol; with the text of a warning, or an empty one."""
    if len(levels.scores) == 0:
        return sweep.undefined_scoring(levels), ""
    thresholds = sampled.sampled_thresholds(kept, num_thresholds)
    if bool(thresholds.isnan().any()):
        return sweep.undefined_scoring(levels), _warnings.infinite_scores("AUPIMO")
    samples = sampled.sample(kept, levels, thresholds, fpr_bounds, shared_fpr)
    scoring = sampled.sampled_scoring(samples, fpr_bounds)
    incomplete = _warnings.lower_bound(float(levels.fpr[0]), 2 * fpr_bounds[1], scoring.max_missing)
    unknown = _warnings.unknown_thresholds() if any(map(math.isnan, scoring.threshold_bounds)) else ""
    return scoring, incomplete or unknown or _warnings.few_samples(samples, fpr_bounds)


def _texts(*texts: str) -> tuple[str, ...]:
    """The texts that are not empty."""
    return tuple(filter(None, texts))
