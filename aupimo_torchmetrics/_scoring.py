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
from aupimo_torchmetrics._engine.kept import NO_ID, PixelScores, drop_repeats
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
    of_ids: tuple[str, ...]
    """What is wrong with the ids of the images."""
    undefined: tuple[str, ...]
    """Why there is no score."""
    uncertain: tuple[str, ...]
    """Why thresholds, and the scores at them, are not certain."""

    @property
    def reasons_of_scores(self) -> tuple[str, ...]:
        """What is to be said to who asks for scores."""
        return (*self.of_ids, *(self.undefined or self.uncertain))

    @property
    def reasons_of_thresholds(self) -> tuple[str, ...]:
        """What is to be said to who asks for thresholds."""
        return (*self.of_ids, *self.uncertain)

    @property
    def table(self) -> sweep.PixelTable:
        """What a pixel contributes to the score of its image."""
        return self.scoring.table


def distinct_images(kept: PixelScores, texts: Sequence[str] | None = None) -> Images:
    """Keep the first image of each id, in the order of the ids; images without an id follow in their order.

    Args:
        kept: What was kept of N images, with their integer ids.
        texts: Ids (N,) that are texts, empty for an image without an id. None if there are none.

    """
    if kept.floor.device.type == "mps":  # which cannot compute in float64; what is kept is a few megabytes
        kept = PixelScores(*(part.cpu() for part in kept))
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
    images: Images, fpr_bounds: tuple[float, float], num_thresholds: int | None, shared_fpr: SharedFPR
) -> ScoredImages:
    """Score distinct images from what was kept of them."""
    kept = images.kept
    # The sampled threshold nearest to the upper bound U may have a shared FPR above U, but of at most 2 U. Only if all
    # have more, it is the lowest of those with the lowest FPR. A mean rises at the next normal score, so few levels
    # tell which one that is; a maximum may be the same at any number of scores.
    needed_fpr = fpr_bounds[1] if num_thresholds is None else 2 * fpr_bounds[1]
    is_whole = num_thresholds is not None and shared_fpr == "max"
    levels = sweep.normal_levels(kept, 1.0 if is_whole else needed_fpr, shared_fpr)
    scoring, text = _scoring_and_text(kept, levels, fpr_bounds, num_thresholds, shared_fpr)
    incomplete = ""
    if len(levels.scores):
        incomplete = _warnings.lower_bound(float(levels.fpr[0]), needed_fpr, scoring.max_missing)
        if not (incomplete or text) and any(map(math.isnan, scoring.threshold_bounds)):
            text = _warnings.unknown_thresholds()
    undefined = _warnings.missing_class("AUPIMO", len(kept.is_anomalous), int(kept.is_anomalous.sum()))
    if not (undefined or len(levels.scores)):
        undefined = _warnings.dropped_scores()
    aupimos = sweep.per_image_scores(kept, scoring.table)
    return ScoredImages(kept, levels, scoring, aupimos, images.warnings, _texts(undefined), _texts(incomplete or text))


def _scoring_and_text(
    kept: PixelScores,
    levels: sweep.NormalLevels,
    fpr_bounds: tuple[float, float],
    num_thresholds: int | None,
    shared_fpr: SharedFPR,
) -> tuple[sweep.Scoring, str]:
    """Score exactly or by the paper's protocol; with the text of a warning if thresholds do not fit the bounds."""
    if len(levels.scores) == 0:
        return sweep.undefined_scoring(levels), ""
    if num_thresholds is None:
        scoring = sweep.exact_scoring(levels, fpr_bounds, shared_fpr)
        if scoring.max_missing > 0 or sweep.resolves(levels, fpr_bounds):
            return scoring, ""
        return scoring, _warnings.unresolved_bounds(levels, fpr_bounds, shared_fpr)
    thresholds = sampled.sampled_thresholds(kept, num_thresholds)
    if bool(thresholds.isnan().any()):
        return sweep.undefined_scoring(levels), _warnings.infinite_scores("AUPIMO")
    samples = sampled.sample(kept, levels, thresholds, fpr_bounds, shared_fpr)
    scoring = sampled.sampled_scoring(samples, fpr_bounds)
    is_known = not any(map(math.isnan, scoring.threshold_bounds))
    return scoring, _warnings.few_samples(samples, fpr_bounds) if is_known else ""


def draw_curves(
    kept: PixelScores, num_thresholds: int | None, shared_fpr: SharedFPR
) -> tuple[tuple[Tensor, Tensor, Tensor], tuple[str, ...]]:
    """Draw the PIMO curves of distinct images, as far as normal scores were kept; with the texts of warnings.

    Returns:
        Thresholds (K,) ascending, shared FPR (K,) and TPRs (N, K), NaN for a normal image; in the dtype of the scores.

    """
    levels = sweep.normal_levels(kept, 1.0, shared_fpr)
    if num_thresholds is None:
        thresholds = sweep.curve_thresholds(kept, levels, shared_fpr)
    else:
        thresholds = sampled.sampled_thresholds(kept, num_thresholds)
    undefined = _warnings.missing_class("PIMO", len(kept.is_anomalous), int(kept.is_anomalous.sum()))
    infinite = _warnings.infinite_scores("PIMO") if bool(thresholds.isnan().any()) else ""
    fpr, tprs = sweep.shared_fpr_at(levels, thresholds), sweep.per_image_tprs(kept, thresholds)
    return (thresholds, fpr.to(thresholds), tprs.to(thresholds)), _texts(undefined or infinite)


def _texts(*texts: str) -> tuple[str, ...]:
    """The texts that are not empty."""
    return tuple(filter(None, texts))
