"""A metric of some images, with the counts of each image from which it follows for any choice of them.

Conventions: N images, B resamples.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import cast

import torch
from torch import Tensor

from aupimo_torchmetrics._engine import binning, resampling
from aupimo_torchmetrics._engine.binning import ImageCounts, PixelCounts
from aupimo_torchmetrics._engine.decision import num_carrying
from aupimo_torchmetrics._engine.ranking import Formula
from aupimo_torchmetrics._engine.resampling import Draws, Interval, Units
from aupimo_torchmetrics._files.counts import CountedImages
from aupimo_torchmetrics._settings import MetricName
from aupimo_torchmetrics.results import AUPIMOResult

__all__ = ["MetricCounts", "counts_of_metric", "counts_of_result", "interval_note"]

FEW_UNITS = 50
"""With fewer images of a class, intervals are too narrow in simulations."""


@dataclass(frozen=True)
class MetricCounts:
    """A metric of N images, and what it takes to compute it of others that are drawn from them."""

    metric: MetricName
    value: float
    protocol: str
    counts: ImageCounts
    formula: Formula
    units: Units
    paths: list[str] | None = None
    num_carrying: float = math.nan
    """Number of normal images that carry the FPR of AUPIMO; NaN if it is not known, or for other metrics."""

    @property
    def is_known(self) -> bool:
        """Whether the metric is defined, and each class has enough units."""
        return not math.isnan(self.value) and self.units.fewest >= resampling.MIN_UNITS

    def resampled(self, draws: Draws) -> Tensor:
        """Compute the metric of resamples: (B,); all NaN if it is not known."""
        if not self.is_known:
            return torch.full((draws.number,), math.nan, dtype=torch.float64, device="cpu")
        return resampling.resample(self.counts, draws, self.formula, self.value)

    def bounds(self, draws: Draws) -> list[Tensor]:
        """Return certain bounds of the metric of resamples: (B,) each; all NaN if it is not known."""
        if not self.is_known:
            return [self.resampled(draws)] * 2
        return [each[1:] for each in resampling.certain_bounds(self.counts, draws, self.formula)]

    def in_order(self, order: Sequence[int]) -> MetricCounts:
        """Put the images in another order, given by their indices (N,)."""
        places = torch.tensor(order, dtype=torch.int64, device="cpu")
        of_images = {name: part[places] for name, part in self.counts._asdict().items() if name != "is_single"}
        units = self.units._replace(of_image=self.units.of_image[places], is_anomalous=self.units.is_anomalous[places])
        paths = None if self.paths is None else [self.paths[index] for index in order]
        return replace(self, counts=self.counts._replace(**of_images), units=units, paths=paths)


def counts_of_result(result: AUPIMOResult, groups: Sequence[str] | None = None) -> MetricCounts | None:
    """Count the images of a result; None if it knows per-image scores only."""
    scored = result._scoring  # noqa: SLF001  of the same package
    if scored is None:
        return None
    formula = resampling.formula_of_aupimo(result.fpr_bounds, result.shared_fpr, float(scored.kept.floor))
    units = Units.of(scored.kept.is_anomalous.cpu(), groups)
    counts = binning.counts_of_kept(scored.kept)
    carrying = math.nan
    if result.shared_fpr == "mean":
        carrying = num_carrying(scored.kept, result.threshold_bounds[0], units.of_image)
    return MetricCounts("aupimo", result.mean, result.protocol, counts, formula, units, result.paths, carrying)


def counts_of_metric(counted: CountedImages, metric: MetricName) -> MetricCounts:
    """Counts of a metric beside AUPIMO, of images that were counted."""
    if metric.startswith("image_"):
        counts = binning.counts_of_scores(cast("Tensor", counted.image_scores), counted.is_anomalous)
    else:
        counts = cast("PixelCounts", counted.pixels).of_regions(is_annotated=metric == "au_spro")
    formula = resampling.formula_of(metric, counted.fpr_limit)
    units = Units.of(counted.is_anomalous, counted.groups)
    value, protocol = counted.values[metric], counted.protocols[metric]
    return MetricCounts(metric, value, protocol, counts, formula, units, counted.paths)


def interval_note(units: Sequence[Units], intervals: Sequence[Interval] = ()) -> str:
    """Say what intervals are of, and how far they can be trusted, of one category or several."""
    numbers = [
        f"{min(of_class)}" if len({*of_class}) == 1 else f"{min(of_class)} to {max(of_class)}"
        for of_class in zip(*(each.numbers for each in units), strict=True)
    ]
    kind = "groups of images" if any(each.is_grouped for each in units) else "images"
    text = (
        f"Intervals (95 %) say where a value may lie on other images of the same kind: of {resampling.NUM_RESAMPLES:,} "
        f"resamples, each of {numbers[0]} normal and {numbers[1]} anomalous {kind}."
    )
    known = [each.max_error for each in intervals if not math.isnan(each.max_error)]
    if known:
        error = max(1e-4, math.ceil(max(known) * 1e4) / 1e4)
        text += f" They are computed in bins, which moves an end by {error:g} at most."
    if min(each.fewest for each in units) < resampling.MIN_UNITS:
        text += f" They are not known with fewer than {resampling.MIN_UNITS} of a class."
    elif any(math.isnan(each.lower + each.upper) for each in intervals):
        text += " One that is not known is of resamples in which scores matter that were not kept."
    if any(each.lower == each.upper for each in intervals):
        text += " One without width says that no resample differed, not that the value is certain."
    if min(each.fewest for each in units) < FEW_UNITS:
        text += f" With fewer than {FEW_UNITS} of a class they are too narrow."
    return text
