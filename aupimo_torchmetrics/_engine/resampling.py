"""Metrics of resampled images, from the counts of each image in bins that are common to all.

A resample takes each image as often as its weight says. So the counts of B resamples are one product of matrices,
weights (B, N) times counts (N, b), and every metric follows from sums over the bins, as if all scores of a bin were
tied. The exact values lie between those for which the mask pixels of each bin are above, and below, its normal pixels.

Images are drawn, never pixels: the pixels of an image are alike. Normal and anomalous images are each drawn among
themselves, or groups of them, such as several photographs of one part.

Conventions: N images, B resamples, b bins in ascending order of their scores. All arithmetic is float64, on the CPU.

Sources: B. Efron and R. J. Tibshirani, "An Introduction to the Bootstrap", 1993; T. Hesterberg, "What Teachers Should
Know about the Bootstrap", The American Statistician 69, 2015 (the expanded percentile interval).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from statistics import NormalDist
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from aupimo_torchmetrics._engine import ranking
from aupimo_torchmetrics._engine.binning import ImageCounts
from aupimo_torchmetrics._engine.ranking import Formula, Ranks
from aupimo_torchmetrics._engine.sweep import recalled_between, recalled_on_tie
from aupimo_torchmetrics._settings import MetricName, SharedFPR

NUM_RESAMPLES = 1000
CONFIDENCE = 0.95
SEED = 0
"""The same images give the same interval."""
MIN_UNITS = 5
"""Of fewer images of a class, the ends of an interval would be the lowest and the highest of all resamples."""
MAX_RESAMPLES = 64
"""Resamples that are computed at a time: the arrays of one step fit into the cache."""
MAX_DRAWN = 2**20
"""Numbers of a matrix (resamples, images)."""
MAX_MASKED = 2**21
"""Numbers of an array (resamples, images, bins), which only the maximum as shared FPR needs."""


class Units(NamedTuple):
    """What is drawn: images or groups of them, normal and anomalous ones each among themselves."""

    of_image: Tensor
    """(N,) int64, number of the unit of each image within its class."""
    numbers: tuple[int, int]
    """Number of normal and of anomalous units."""
    is_anomalous: Tensor
    """(N,) bool, class of each image."""

    @classmethod
    def of(cls, is_anomalous: Tensor, groups: Sequence[str] | None = None) -> Units:
        """Make units of the images, or of their groups; an image without a name of its group is one of its own."""
        numbers: tuple[dict[Any, int], dict[Any, int]] = ({}, {})
        keys = [group or index for index, group in enumerate(groups or [""] * len(is_anomalous))]
        of_image = [
            numbers[is_of_second].setdefault(key, len(numbers[is_of_second]))
            for key, is_of_second in zip(keys, is_anomalous.int().tolist(), strict=True)
        ]
        sizes = (len(numbers[0]), len(numbers[1]))
        return cls(torch.tensor(of_image, dtype=torch.int64, device="cpu"), sizes, is_anomalous)

    @property
    def is_grouped(self) -> bool:
        """Whether a unit has several images."""
        return sum(self.numbers) < len(self.of_image)

    @property
    def fewest(self) -> int:
        """Number of units of the smaller class."""
        return min(self.numbers)


class Draws(NamedTuple):
    """How often each of B resamples takes each image: the same for all metrics and models of the images.

    Of either class as many units are drawn as there are, with replacement.
    """

    units: Units
    number: int
    seed: int

    def weights(self) -> Iterator[Tensor]:
        """Yield how often some resamples take each image, (n, N) float64, until there are B of them."""
        generator = torch.Generator("cpu").manual_seed(self.seed)
        units = self.units
        classes = [*zip(units.numbers, (~units.is_anomalous, units.is_anomalous), strict=True)]
        size = min(MAX_RESAMPLES, max(1, MAX_DRAWN // max(1, len(units.of_image))))
        for start in range(0, self.number, size):
            num_resamples = min(size, self.number - start)
            weights = torch.zeros(num_resamples, len(units.of_image), dtype=torch.float64, device="cpu")
            for number, is_of_class in classes:
                times = torch.zeros(num_resamples, number, dtype=torch.float64, device="cpu")
                if number:
                    drawn = torch.randint(number, times.shape, generator=generator, device="cpu")
                    times.scatter_add_(1, drawn, torch.ones_like(times))
                weights[:, is_of_class] = times[:, units.of_image[is_of_class]]
            yield weights


def formula_of(metric: MetricName, fpr_limit: float) -> Formula:
    """The formula of a metric beside AUPIMO; AUPRO and AU-sPRO have a limit of the FPR."""
    if metric in {"aupro", "au_spro"}:
        return ranking.aupro_up_to(fpr_limit)
    formulas = {"auroc": ranking.AUROC, "aupr": ranking.AVERAGE_PRECISION, "f1_max": ranking.F1_MAX}
    return formulas[metric.removeprefix("image_")]


def formula_of_aupimo(fpr_bounds: tuple[float, float], shared_fpr: SharedFPR, floor: float) -> Formula:
    """The formula of AUPIMO of scores that were kept down to a floor."""

    def value(ranks: Ranks) -> Tensor:
        above, at_least = ranks.above / ranks.num_normal, ranks.at_least / ranks.num_normal
        recalled = recalled_between(at_least, fpr_bounds) + recalled_on_tie(above, at_least, fpr_bounds)
        return (cast("Tensor", ranks.weights) * recalled.clamp(0, 1)).sum(-1)

    needed_fpr = 0.0 if floor == -math.inf else fpr_bounds[1]
    return Formula(value, is_max=shared_fpr == "max", needed_fpr=needed_fpr)


def resample(counts: ImageCounts, draws: Draws, formula: Formula, value: float) -> Tensor:
    """Compute a metric of resamples: (B,), NaN where it is not known.

    They are as if all scores of a bin were tied, moved by as much as this errs for the images as they are, of which the
    value is known.
    """
    (tied,) = _of_draws(counts, draws, formula, lambda ranks: [formula.value(ranks)])
    lowest, highest = certain_bounds(counts, draws._replace(number=0), formula)
    exact = tied.new_tensor(value).clamp(lowest[0], highest[0])  # a value of a histogram may lie beyond
    return (tied[1:] + (exact - tied[0])).clamp(0, 1)


def certain_bounds(counts: ImageCounts, draws: Draws, formula: Formula) -> list[Tensor]:
    """Bounds of the exact values of a metric of the images as they are, and of each resample: (1 + B,) each.

    They are NaN where they are not known.
    """
    return _of_draws(counts, draws, formula, lambda ranks: formula.bounds(ranks, counts.is_single))


def _of_draws(
    counts: ImageCounts, draws: Draws, formula: Formula, values_of: Callable[[Ranks], list[Tensor]]
) -> list[Tensor]:
    """Values (1 + B,) of the ranks of the images as they are, and of each resample; NaN where they are not known."""
    ones = torch.ones(1, len(draws.units.of_image), dtype=torch.float64, device="cpu")
    size = max(1, MAX_MASKED // counts.normal.numel()) if formula.is_max else MAX_RESAMPLES
    found = []
    for weights in (ones, *draws.weights()):
        for part in torch.split(weights, size):
            ranks = _ranks(counts, part, formula)
            is_known = ranks.at_least[:, 0] >= formula.needed_fpr * cast("Tensor", ranks.num_normal)[:, 0]
            found.append([torch.where(is_known, values, math.nan) for values in values_of(ranks)])
    return [torch.cat(parts) for parts in zip(*found, strict=True)]


def _ranks(counts: ImageCounts, weights: Tensor, formula: Formula) -> Ranks:
    """Ranks of resamples (B, N)."""
    num_normal = (weights @ counts.num_normal)[:, None]
    if formula.is_max:
        of_images = torch.where(weights[:, :, None] > 0, ranking.sums_from(counts.normal), 0)
        at_least = of_images.amax(1) * num_normal
    else:
        at_least = ranking.sums_from(weights @ counts.normal)
    above = torch.cat([at_least[:, 1:], torch.zeros_like(at_least[:, :1])], 1)
    shares = (weights @ counts.shares) / (weights @ counts.num_regions)[:, None]
    return Ranks(counts.is_single, weights @ counts.mask, above, at_least, num_normal, shares)


class Interval(NamedTuple):
    """Where a value may lie with other images of the same kind."""

    lower: float
    upper: float
    max_error: float
    """The bins move either end by at most this."""


def interval_of(values: Tensor, bounds: Sequence[Tensor], number: float) -> Interval:
    """Interval of a resampled metric with its certain bounds, of which the smaller class has a number of units."""
    ends, lowest, highest = (expanded_interval(each, number) for each in (values, *bounds))
    errors = [abs(end - other[place]) for other in (lowest, highest) for place, end in enumerate(ends)]
    return Interval(*ends, math.nan if any(map(math.isnan, errors)) else max(errors))


def expanded_interval(values: Tensor, number: float, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Expanded percentile interval of resampled values (B,), which makes up for a small number of drawn units.

    A value that is not known (NaN) may lie beyond both ends; an end on which that bears is NaN. So are both ends of
    fewer than `MIN_UNITS` units.
    """
    if not number >= MIN_UNITS:
        return math.nan, math.nan
    tail = NormalDist().cdf(math.sqrt(number / (number - 1)) * student_quantile((1 - confidence) / 2, number - 1))
    ends = [
        float(torch.quantile(values.nan_to_num(unknown, posinf=math.inf, neginf=-math.inf), probability))
        for unknown, probability in ((-math.inf, tail), (math.inf, 1 - tail))
    ]
    low, high = (end if math.isfinite(end) else math.nan for end in ends)
    return low, high


def number_of_mean(variances: Sequence[float], numbers: Sequence[float]) -> float:
    """Number of units of a mean of independent values with some variances, each of a number of units.

    Its degrees of freedom, one less, are those of F. E. Satterthwaite, Biometrics Bulletin 2, 1946.
    """
    total = math.fsum(variances)
    if total == 0:
        return max(numbers)
    return 1 + total**2 / math.fsum(each**2 / (number - 1) for each, number in zip(variances, numbers, strict=True))


def independent(values: Tensor, place: int) -> Tensor:
    """Put resampled values (..., B) of a data set in an order of its own, so that those of several are independent."""
    order = torch.randperm(values.shape[-1], generator=torch.Generator("cpu").manual_seed(place), device="cpu")
    return values[..., order]


def student_quantile(probability: float, degrees: float) -> float:
    """Quantile of Student's t distribution (R. A. Fisher and E. A. Cornish, Technometrics 2, 1960, first five terms).

    The error is below 0.02 % from five degrees of freedom on, and 0.8 % at two.
    """
    z = NormalDist().inv_cdf(probability)
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return math.fsum([z, *(term / degrees**power for power, term in enumerate(terms, 1))])
