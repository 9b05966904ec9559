"""Compare models image by image, by paired tests."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from aupimo_torchmetrics._engine import resampling
from aupimo_torchmetrics._errors import BadDataError, SettingError
from aupimo_torchmetrics._extras import require
from aupimo_torchmetrics._metric_counts import MetricCounts, counts_of_result
from aupimo_torchmetrics._settings import (
    TIE_TOLERANCE,
    Alternative,
    ComparisonTest,
    MatchedBy,
    MetricName,
    check_choice,
)
from aupimo_torchmetrics._tables import interval_text, metric_title, text_table
from aupimo_torchmetrics.results import AUPIMOResult
from aupimo_torchmetrics.statistics._matching import AlignedScores, align_scores
from aupimo_torchmetrics.statistics._ties import EQUAL_WITHIN, Scores, best_first, is_at_most, merge_equal
from aupimo_torchmetrics.statistics.distribution import bootstrap_interval

__all__ = ["ModelComparison", "compare_models", "confidence_text"]

INTERVAL_CONFIDENCE = 0.95
"""Share of the bootstrap means that the intervals hold."""

MAX_EXACT = 19
"""Up to this many differences that are not zero the Wilcoxon test counts all signs that they could have. Beyond, the
normal approximation is good, and the official package takes it wherever differences are zero or equal."""

MAX_EXACT_DISTINCT = 50
"""As `MAX_EXACT`, where no difference is zero and no two are equal: as many as in scipy."""

ROUNDING = 1e-9
"""More than the rounding error of a product such as 1000 * 0.057, which may be a little less than 57."""


@dataclass(frozen=True)
class ModelComparison:
    """Which of several models is better on the same images, and how sure one may be.

    Attributes:
        order: Names of the models, the best first: by average rank for the Wilcoxon test, else by mean.
        means: Mean score of each model, or its value of another metric.
        intervals: Lower and upper end of the 95 % interval of each mean, as
            `aupimo_torchmetrics.statistics.bootstrap_interval` gives it.
        average_ranks: Rank of each model, averaged over the images: 1 for a model that is the best on every image.
            Models with equal scores on an image share the average of their ranks. Empty for resampled images.
        confidence: `confidence[a, b]` is 1 - p of the test whose alternative hypothesis is, if `"greater"`, that the
            scores of `a` are greater than those of `b`.
        test: `"resampled"`, `"wilcoxon"` or `"ttest"`.
        alternative: `"greater"`, `"less"` or `"two-sided"`.
        num_images: Number of anomalous images, those with a score.
        matched_by: What said which scores are of the same image: its `"path"`, its `"image id"`, or its `"position"`.
        differences: `differences[a, b]` is the mean of `a` less that of `b`, with the lower and the upper end of its
            95 % interval. Of resampled images only.
        num_normal: Number of normal images; 0 where they do not vary.
        metric: Name of the metric.
        num_categories: Number of categories of which means are compared.

    Example:
        >>> import torch
        >>> from aupimo_torchmetrics import AUPIMOResult
        >>> from aupimo_torchmetrics.statistics import compare_models
        >>> scores, paths = torch.linspace(0, 0.9, 10), [f"crack/00{index}.png" for index in range(10)]
        >>> old, new = (AUPIMOResult(each, (1e-5, 1e-4), (0.0, 1.0), paths=paths) for each in (scores, scores + 0.1))
        >>> print(compare_models({"old": old, "new": new}))  # doctest: +NORMALIZE_WHITESPACE
        for these thresholds, 10 images; confidence (1 - p, wilcoxon) that a row's model is better than a column's;
        ordered by average rank
            model   mean  rank     #1     #2  95% interval of the mean
        #1  new    0.550  1.00      -  0.999  0.350 to 0.770
        #2  old    0.450  2.00  0.000      -  0.250 to 0.670

    """

    order: tuple[str, ...]
    means: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    average_ranks: dict[str, float]
    confidence: dict[tuple[str, str], float]
    test: ComparisonTest
    alternative: Alternative
    num_images: int
    matched_by: MatchedBy = "path"
    differences: dict[tuple[str, str], tuple[float, float, float]] = field(default_factory=dict)
    num_normal: int = 0
    metric: MetricName = "aupimo"
    num_categories: int = 1

    @property
    def relation(self) -> str:
        """What the confidence says of one model to another: `"better than"`, `"worse than"` or `"different from"`."""
        return {"greater": "better than", "less": "worse than", "two-sided": "different from"}[self.alternative]

    @property
    def ordered_by(self) -> str:
        """By what the models are ordered: `"average rank"` or `"mean"`."""
        if self.test == "wilcoxon":
            return "average rank"
        return "mean" if self.metric == "aupimo" else metric_title(self.metric)

    @property
    def title(self) -> str:
        """Text that says what the table of `rows` shows."""
        by_position = " matched by position" if self.matched_by == "position" else ""
        if self.test == "resampled":
            what, test = f"resampled images, {self.num_normal} normal and {self.num_images} anomalous", "1 - p"
            if self.num_categories > 1:
                what = f"mean over {self.num_categories} categories; {what}"
        else:
            what, test = f"for these thresholds, {self.num_images} images", f"1 - p, {self.test}"
        claim = f"confidence ({test}) that a row's model is {self.relation} a column's"
        return f"{what}{by_position}; {claim}; ordered by {self.ordered_by}"

    def confidences_of(self, model: str) -> dict[str, float]:
        """Return the confidence of a model against each of the others, the best first."""
        return {other: self.confidence[model, other] for other in self.order if other != model}

    def rows(self) -> list[list[str]]:
        """Return the table of the models as texts.

        Returns:
            The head, and a row for each model, the best first: number, name, mean, average rank, the confidence against
            each model, and the interval of the mean. Of resampled images there is no rank, and at the end the
            difference from the first model with its interval.

        """
        numbers = [f"#{number}" for number in range(1, len(self.order) + 1)]
        value, of_value = ("mean", " of the mean") if self.metric == "aupimo" else (metric_title(self.metric), "")
        interval = f"{INTERVAL_CONFIDENCE:.0%} interval{of_value}"
        rows = [["", "model", value, "rank", *numbers, interval, "difference from #1"]]
        for number, name in zip(numbers, self.order, strict=True):
            rank = f"{self.average_ranks.get(name, math.nan):.2f}"
            confidences = [
                "-" if name == other else confidence_text(self.confidence[name, other]) for other in self.order
            ]
            interval = interval_text(*self.intervals[name])
            difference, low, high = self.differences.get((name, self.order[0]), (math.nan,) * 3)
            from_first = "-" if math.isnan(difference) else f"{difference:+.3f} ({interval_text(low, high, '+.3f')})"
            rows.append([number, name, f"{self.means[name]:.3f}", rank, *confidences, interval, from_first])
        for row in rows:  # of resampled images there are no ranks, of others no differences
            del row[3 if self.test == "resampled" else -1]
        return rows

    @property
    def alignment(self) -> str:
        """How the columns of `rows` are aligned: `<` to the left, `>` to the right."""
        return "<<>" + ">" * (len(self.order) + (self.test != "resampled")) + "<" * (1 + (self.test == "resampled"))

    def __str__(self) -> str:
        """Table of the models, the best first, with the confidences of each against each."""
        return f"{self.title}\n{text_table(self.rows(), self.alignment)}"


def confidence_text(confidence: float) -> str:
    """Write a confidence with three digits, rounded down: 0.950 is 0.95 or more, and 1.000 that p is practically 0.

    Example:
        >>> from aupimo_torchmetrics.statistics.paired import confidence_text
        >>> confidence_text(0.99999)
        '0.999'

    """
    return f"{math.floor(1000 * confidence + ROUNDING) / 1000:.3f}"


def compare_models(
    results: Mapping[str, AUPIMOResult],
    test: ComparisonTest = "wilcoxon",
    alternative: Alternative = "greater",
    atol: float = TIE_TOLERANCE,
    *,
    groups: Sequence[str] | None = None,
    num_resamples: int = resampling.NUM_RESAMPLES,
    seed: int = resampling.SEED,
) -> ModelComparison:
    """Compare models on the same images, each with each.

    `"resampled"` asks which model is better on other images of the same kind: normal and anomalous images are drawn
    anew, the same for all models, and so all thresholds vary. The tests of per-image scores, as the paper has them, ask
    it for the thresholds that these images have. An error in a threshold moves all scores of a model together, so these
    tests are too sure: of two models that are equal in law, they call one different in 12 to 30 of 100
    simulations at the 5 % level, and the resampled difference in 2 to 8 (`tests/benchmarks/intervals.py`).

    Images are matched by the common ends of their paths: folders at the beginning and suffixes may differ, as they do
    in results from two machines. Where a result has no paths, they are matched by their image ids, and without these
    they are taken to be in the same order. Images that could be matched in two ways are an error.
    The confidences of many pairs are not corrected for their number.

    Scores that differ by less than 1e-12 are equal, so that rounding decides no rank, order or confidence. Models with
    equal scores on all images are told apart by no test: the confidence is 0. The t-test is sure of a difference that
    is the same on all images: the confidence is 1 if it has the sign that `alternative` says, and 0 if not.

    Args:
        results: Scores of two or more models on the same images, by the name of the model.
        test: `"resampled"` for the difference on resampled images, which needs results that know their normal scores;
            `"wilcoxon"` for the signed-rank test, `"ttest"` for the paired t-test. In the Wilcoxon test differences
            of zero do not count. It is exact if fewer than 20 others are left, or up to 50 if all differences are
            distinct and none is zero; else it uses the normal approximation.
        alternative: What the confidence is in: `"greater"`, `"less"` or `"two-sided"`.
        atol: Scores of an image that differ by at most this count as equal in the Wilcoxon test, at least 0.
        groups: Name of the group of each image of the first model, as of the part of which it is a photograph. Then
            groups are drawn.
        num_resamples: How often images are drawn.
        seed: Fixes the draws.

    Returns:
        Order, means, intervals, average ranks and confidences, which print as a table.

    Raises:
        ValueError: If there are fewer than two models or images, if a choice is not known, if `atol` is negative or
            NaN, or if the results are not of the same images, image classes, FPR bounds and shared FPR.
        ModuleNotFoundError: If scipy is not installed.

    Example:
        >>> import torch
        >>> from aupimo_torchmetrics import AUPIMOResult
        >>> from aupimo_torchmetrics.statistics import compare_models
        >>> scores = torch.linspace(0, 0.9, 10)
        >>> old, new = (AUPIMOResult(each, (1e-5, 1e-4), (0.0, 1.0)) for each in (scores, scores + 0.1))
        >>> comparison = compare_models({"old": old, "new": new})
        >>> comparison.order, round(comparison.confidence["new", "old"], 3)
        (('new', 'old'), 0.999)

    """
    check_choice("test", test, ComparisonTest)
    check_choice("alternative", alternative, Alternative)
    if not atol >= 0:
        raise SettingError(f"Expected `atol` to be at least 0, but got {atol}.")
    aligned = _aligned_scores(results)
    scores = aligned.scores
    require("scipy", extra="stats", needed_by="compare_models")
    if test == "resampled":
        if num_resamples < 1:
            raise SettingError(f"Expected `num_resamples` to be at least 1, but got {num_resamples}.")
        if groups is not None and len(groups) != len(next(iter(results.values())).aupimos):
            raise SettingError(f"Expected `groups` to name one for each image, but got {len(groups)}.")
        counts: dict[str, list[MetricCounts]] = {}
        for name, result in results.items():
            counts[name] = [_counts_of(name, result, None if counts else groups).in_order(aligned.orders[name])]
        return compare_resampled(resample_models(counts, num_resamples, seed), alternative, aligned.matched_by)
    if groups is not None:
        raise SettingError('Expected `test="resampled"` with `groups`, as the others know no groups.')
    from scipy import stats  # noqa: PLC0415

    by_image = merge_equal(np.stack(list(scores.values())), axis=0)
    average_ranks = dict(zip(scores, stats.rankdata(-by_image, axis=0).mean(1).tolist(), strict=True))
    means = {name: float(each.mean()) for name, each in scores.items()}
    is_wilcoxon = test == "wilcoxon"
    order = sorted(scores, key=lambda name: average_ranks[name]) if is_wilcoxon else best_first(means)
    confidence = {}
    for a, b in itertools.permutations(order, 2):
        differences = scores[a] - scores[b]
        p_value = _wilcoxon(differences, alternative, atol) if is_wilcoxon else _t_test(differences, alternative)
        confidence[a, b] = 1 - p_value
    return ModelComparison(
        order=tuple(order),
        means=means,
        intervals={name: bootstrap_interval(results[name], INTERVAL_CONFIDENCE) for name in order},
        average_ranks=average_ranks,
        confidence=confidence,
        test=test,
        alternative=alternative,
        num_images=by_image.shape[1],
        matched_by=aligned.matched_by,
    )


class ResampledModels(NamedTuple):
    """Models on the same resamples of images."""

    means: dict[str, float]
    """Value of each model, or its mean over categories."""
    values: dict[str, Tensor]
    """(B,) the same of each resample."""
    number: float
    """Number of drawn images or groups of the smaller class."""
    num_images: tuple[int, int]
    """Number of normal and of anomalous images."""
    metric: MetricName
    num_categories: int = 1


def resample_models(
    counts: Mapping[str, Sequence[MetricCounts]],
    num_resamples: int = resampling.NUM_RESAMPLES,
    seed: int = resampling.SEED,
) -> ResampledModels:
    """Compute models on resamples of images.

    Args:
        counts: Of each model, counts of the same images in the same order; of several seeds, whose mean counts. What is
            drawn are the units of the first.
        num_resamples: How often images are drawn.
        seed: Fixes the draws.

    """
    first = next(iter(counts.values()))[0]
    draws = resampling.Draws(first.units, num_resamples, seed)
    num_anomalous = int(first.units.is_anomalous.sum())
    return ResampledModels(
        {name: fmean(each.value for each in seeds) for name, seeds in counts.items()},
        {name: torch.stack([each.resampled(draws) for each in seeds]).mean(0) for name, seeds in counts.items()},
        first.units.fewest,
        (len(first.units.is_anomalous) - num_anomalous, num_anomalous),
        first.metric,
    )


def mean_over_categories(categories: Sequence[ResampledModels]) -> ResampledModels:
    """Mean over categories, whose images are drawn independently of each other."""
    first = categories[0]
    values = {
        name: torch.stack([resampling.independent(each.values[name], place) for place, each in enumerate(categories)])
        for name in first.values
    }
    variances = torch.stack([each.var(1) for each in values.values()]).mean(0)
    return ResampledModels(
        {name: fmean(each.means[name] for each in categories) for name in first.means},
        {name: each.mean(0) for name, each in values.items()},
        resampling.number_of_mean(variances.tolist(), [each.number for each in categories]),
        (sum(each.num_images[0] for each in categories), sum(each.num_images[1] for each in categories)),
        first.metric,
        len(categories),
    )


def compare_resampled(
    models: ResampledModels, alternative: Alternative, matched_by: MatchedBy = "path"
) -> ModelComparison:
    """Compare models by resampled images.

    The p-value is the smallest level at which the expanded percentile interval of the difference leaves out 0; it is
    that of half a resample if all are on one side of 0.
    """
    means, values, number = models.means, models.values, models.number
    order = best_first(means)
    confidence, differences = {}, {}
    for a, b in itertools.permutations(order, 2):
        resampled = values[a] - values[b]
        differences[a, b] = (means[a] - means[b], *resampling.expanded_interval(resampled, number))
        confidence[a, b] = 1 - _resampled_p_value(resampled, number, alternative)
    return ModelComparison(
        order=tuple(order),
        means=means,
        intervals={name: resampling.expanded_interval(values[name], number) for name in order},
        average_ranks={},
        confidence=confidence,
        test="resampled",
        alternative=alternative,
        num_images=models.num_images[1],
        matched_by=matched_by,
        differences=differences,
        num_normal=models.num_images[0],
        metric=models.metric,
        num_categories=models.num_categories,
    )


def _resampled_p_value(differences: Tensor, number: float, alternative: Alternative) -> float:
    """The p-value of resampled differences (B,) by an expanded percentile interval; 1 if they are not known.

    A difference that is not known, or is 0 but for rounding, counts against either side.
    """
    from scipy import stats  # noqa: PLC0415

    if number < resampling.MIN_UNITS:
        return 1.0
    num_against = [max(0.5, float((~(sign * differences > EQUAL_WITHIN)).sum())) for sign in (1, -1)]
    quantiles = stats.norm.ppf(np.array(num_against) / len(differences))
    greater, less = stats.t.cdf(math.sqrt((number - 1) / number) * quantiles, number - 1).tolist()
    p_values = {"greater": greater, "less": less, "two-sided": 2 * min(less, greater)}
    return min(1.0, float(p_values[alternative]))


def _counts_of(name: str, result: AUPIMOResult, groups: Sequence[str] | None) -> MetricCounts:
    """Counts of the images of a model; raise unless it knows its normal scores."""
    counts = counts_of_result(result, groups)
    if counts is None:
        raise BadDataError(
            f"Expected `results` that know their normal scores, but {name!r} holds per-image scores only, as files of "
            "the official package do. Of these, only tests for the thresholds that they have are possible: "
            '`test="wilcoxon"` or `test="ttest"`.'
        )
    return counts


def _wilcoxon(differences: Scores, alternative: Alternative, atol: float) -> float:
    """The p-value of the signed-rank test, of the differences (n,) of the scores of two models."""
    from scipy import stats  # noqa: PLC0415

    sizes = merge_equal(np.abs(differences))
    is_counted = ~is_at_most(sizes, atol)
    signed = np.copysign(sizes, differences)[is_counted]
    if len(signed) == 0:
        return 1.0
    ranks = stats.rankdata(np.abs(signed))
    is_distinct = len(np.unique(ranks)) == len(differences)
    if len(signed) <= (MAX_EXACT_DISTINCT if is_distinct else MAX_EXACT):
        return _exact_p_value(ranks, signed > 0, alternative)
    return float(stats.wilcoxon(signed, alternative=alternative, method="asymptotic").pvalue)


def _exact_p_value(ranks: Scores, is_positive: NDArray[np.bool_], alternative: Alternative) -> float:
    """The p-value of a sum of ranks (n,) with positive signs, where each sign is + or - with probability 1/2."""
    doubled = (2 * ranks).astype(int)  # equal differences share a mean of ranks, which may end in .5
    probabilities = np.ones(1)  # element s is the probability that the sum is s
    for rank in doubled:
        probabilities = (np.pad(probabilities, (0, rank)) + np.pad(probabilities, (rank, 0))) / 2
    observed = doubled[is_positive].sum()
    less, greater = float(probabilities[: observed + 1].sum()), float(probabilities[observed:].sum())
    return min(1.0, {"greater": greater, "less": less, "two-sided": 2 * min(less, greater)}[alternative])


def _t_test(differences: Scores, alternative: Alternative) -> float:
    """The p-value of the paired t-test, of the differences (n,) of the scores of two models."""
    from scipy import stats  # noqa: PLC0415

    mean = float(differences.mean())
    if np.ptp(differences) >= EQUAL_WITHIN:
        return float(stats.ttest_1samp(differences, 0, alternative=alternative).pvalue)
    if abs(mean) < EQUAL_WITHIN:
        return 1.0
    has_sign = {"greater": mean > 0, "less": mean < 0, "two-sided": True}
    return 0.0 if has_sign[alternative] else 1.0


def _aligned_scores(results: Mapping[str, AUPIMOResult]) -> AlignedScores:
    """Scores (n,) of the anomalous images of each model, image by image the same."""
    if len(results) < 2:
        raise ValueError(f"Expected `results` to hold two models or more, but got {len(results)}.")
    (first_name, first), *others = results.items()
    for name, other in others:
        check_same_settings(first, other, f"for {first_name!r}", f"for {name!r}")
    aligned = align_scores(results)
    has_score = ~np.isnan(aligned.scores[first_name])
    if has_score.sum() < 2:
        raise BadDataError(f"Expected `results` to hold the scores of two images or more, but got {has_score.sum()}.")
    return aligned._replace(scores={name: each[has_score] for name, each in aligned.scores.items()})


def check_same_settings(first: AUPIMOResult, other: AUPIMOResult, of_first: str, of_other: str) -> None:
    """Raise unless two results, each said by a text of whose it is, average over the same FPRs."""
    for setting in ("fpr_bounds", "shared_fpr"):
        values = getattr(first, setting), getattr(other, setting)
        if values[0] != values[1]:
            raise BadDataError(
                f"Expected `results` to have the same `{setting}`, "
                f"but got {values[0]!r} {of_first} and {values[1]!r} {of_other}."
            )
