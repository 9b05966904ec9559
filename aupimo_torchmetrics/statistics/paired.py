"""Statistics of per-image scores: what stands for a distribution, and which of several models is better.

A quarter of the published scores are exactly 0 and many exactly 1, so ties are the rule here and not the exception.

Conventions: N images; normal images, which score NaN, are left out. An image is named by its place in the scores, from
0 to N - 1. scipy is imported where it is used.

Source: J. P. C. Bertoldo et al., "AUPIMO: Redefining Visual Anomaly Detection Benchmarks with High Speed and Low
Tolerance", BMVC 2024, arXiv 2401.01984, whose published statistics the functions reproduce.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from aupimo_torchmetrics._settings import check_choice
from aupimo_torchmetrics.results import AUPIMOResult

WHISKER_REACH = 1.5
"""A whisker ends at the last score within this many interquartile ranges of the box, as box plots have it."""
REPEAT_TOLERANCE = 1e-2
"""An image that already stands for one statistic gives way to another that is as near to the next, up to this."""
TIE_TOLERANCE = 1e-3
"""Scores that differ by at most this are taken for equal by the Wilcoxon test, as in the official package."""
TESTS = ("wilcoxon", "ttest")
ALTERNATIVES = ("greater", "less", "two-sided")
RANKING_ALPHA = 0.05
"""Level of the test that tells ranked models apart, as in most published critical-difference diagrams."""
LOW_OUTLIER, HIGH_OUTLIER = "low outlier", "high outlier"

Scores = NDArray[np.float64]


class ImageStatistic(NamedTuple):
    """One statistic of the per-image scores, and the image that is nearest to it."""

    name: str
    """`"low whisker"`, `"first quartile"`, `"median"`, `"mean"`, `"third quartile"`, `"high whisker"`, or, if they were
    asked for, `"low outlier"` or `"high outlier"`."""
    value: float
    """Value of the statistic."""
    image: int
    """Place of the image in the scores."""
    score: float
    """Score of the image."""


def per_image_statistics(
    result: AUPIMOResult, *, outliers: str = "none", tolerance: float = REPEAT_TOLERANCE
) -> list[ImageStatistic]:
    """Find the images that stand for the distribution of the scores: those nearest to the statistics of a box plot.

    A whisker is the last score within 1.5 interquartile ranges of the box; what lies beyond is an outlier.

    Args:
        result: Scores, as :meth:`~aupimo_torchmetrics.AUPIMO.result` returns them.
        outliers: Whether to list outliers too: `"none"`, `"low"`, `"high"` or `"both"`.
        tolerance: An image that already stands for a statistic gives way to another one if that is at most this far
            from the value. 0 lets only images with exactly the value take its place.

    Returns:
        The statistics in ascending order of the images' scores; nothing if no image has a score.

    Raises:
        ValueError: If `outliers` is not one of the choices, or `tolerance` is negative.

    Example:
        >>> import torch
        >>> from aupimo_torchmetrics import AUPIMOResult
        >>> from aupimo_torchmetrics.statistics import per_image_statistics
        >>> scores = torch.tensor([0.1, 0.8, float("nan"), 0.6, 0.7, 0.5])
        >>> result = AUPIMOResult(scores, (1e-5, 1e-4), (0.0, 1.0))
        >>> for statistic in per_image_statistics(result):
        ...     print(f"{statistic.name}: {statistic.value:.2f}, image {statistic.image}")
        low whisker: 0.50, image 5
        first quartile: 0.50, image 5
        mean: 0.54, image 5
        median: 0.60, image 3
        third quartile: 0.70, image 4
        high whisker: 0.80, image 1

    """
    check_choice("outliers", outliers, ("none", "low", "high", "both"))
    if not tolerance >= 0:
        raise ValueError(f"Expected `tolerance` to be at least 0, but got {tolerance}.")
    scores = result.aupimos.double().cpu().numpy()
    images = np.flatnonzero(~np.isnan(scores))
    if len(images) == 0:
        return []
    chosen: set[int] = set()
    statistics = []
    for name, value in sorted(_box_plot(scores[images], outliers), key=lambda statistic: statistic[1]):
        distances = np.abs(scores[images] - value)
        by_distance = images[distances.argsort(kind="stable")].tolist()  # of several as near the first
        fresh = (image for image in by_distance if image not in chosen and abs(scores[image] - value) <= tolerance)
        image = by_distance[0] if by_distance[0] not in chosen else next(fresh, by_distance[0])
        chosen.add(image)
        statistics.append(ImageStatistic(name, value, image, float(scores[image])))
    return sorted(statistics, key=lambda statistic: statistic.score)


def _box_plot(scores: Scores, outliers: str) -> list[tuple[str, float]]:
    """Names and values of the statistics of scores (n,) without NaN, and of the outliers that are asked for."""
    first, median, third = (float(value) for value in np.percentile(scores, [25, 50, 75]))
    reach = WHISKER_REACH * (third - first)
    # Between a quartile and the end of its whisker there may be no score at all.
    low = min(float(scores[scores >= first - reach].min()), first)
    high = max(float(scores[scores <= third + reach].max()), third)
    statistics = [
        ("low whisker", low),
        ("first quartile", first),
        ("median", median),
        ("mean", float(scores.mean())),
        ("third quartile", third),
        ("high whisker", high),
    ]
    if outliers in {"low", "both"}:
        statistics += [(LOW_OUTLIER, float(score)) for score in scores[scores < low]]
    if outliers in {"high", "both"}:
        statistics += [(HIGH_OUTLIER, float(score)) for score in scores[scores > high]]
    return statistics


@dataclass(frozen=True)
class ModelComparison:
    """Which of several models is better on the same images, and how sure one may be.

    Attributes:
        order: Names of the models, the best first: by average rank for the Wilcoxon test, by mean for the t-test.
        means: Mean score of each model.
        average_ranks: Rank of each model, averaged over the images: 1 for a model that is the best on every image.
        confidence: `confidence[a, b]` is 1 - p of the test whose alternative hypothesis is, if `"greater"`, that the
            scores of `a` are greater than those of `b`.
        test: `"wilcoxon"` or `"ttest"`.
        alternative: `"greater"`, `"less"` or `"two-sided"`.
        num_images: Number of images with a score.

    """

    order: tuple[str, ...]
    means: dict[str, float]
    average_ranks: dict[str, float]
    confidence: dict[tuple[str, str], float]
    test: str
    alternative: str
    num_images: int

    @property
    def relation(self) -> str:
        """What the confidence says of one model to another: `"better than"`, `"worse than"` or `"different from"`."""
        return {"greater": "better than", "less": "worse than", "two-sided": "different from"}[self.alternative]

    def __str__(self) -> str:
        """Table of the models, the best first, with the confidences of each against each."""
        width = max(len(name) for name in (*self.order, "model"))
        columns = [f"#{rank + 1}" for rank in range(len(self.order))]
        claim = f"a row's model is {self.relation} a column's"
        lines = [
            f"{self.num_images} images; confidence (1 - p, {self.test}) that {claim}",
            f"{'':3} {'model':<{width}} {'mean':>6} {'rank':>5} " + "".join(f"{column:>7}" for column in columns),
        ]
        for column, name in zip(columns, self.order, strict=True):
            confidences = (
                f"{'-':>7}" if name == other else f"{self.confidence[name, other]:>7.3f}" for other in self.order
            )
            head = f"{column:<3} {name:<{width}} {self.means[name]:>6.3f} {self.average_ranks[name]:>5.2f} "
            lines.append(head + "".join(confidences))
        return "\n".join(lines)


def compare_models(
    results: Mapping[str, AUPIMOResult],
    test: str = "wilcoxon",
    alternative: str = "greater",
    atol: float = TIE_TOLERANCE,
) -> ModelComparison:
    """Compare models image by image, by a paired test of each against each.

    Images in another order are aligned by the paths of the results, or else by their image ids. Without either they are
    taken to be in the same order. The confidences of many pairs are not corrected for their number.

    Args:
        results: Scores of two or more models on the same images, by the name of the model.
        test: `"wilcoxon"` for the signed-rank test, `"ttest"` for the paired t-test.
        alternative: What the confidence is in: `"greater"`, `"less"` or `"two-sided"`.
        atol: Scores of an image that differ by at most this count as equal in the Wilcoxon test.

    Returns:
        Order, means, average ranks and confidences, which print as a table.

    Raises:
        ValueError: If there are fewer than two models or images, a choice is not known, `atol` is negative, or the
            results are not of the same images, image classes and FPR bounds.
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
    check_choice("test", test, TESTS)
    check_choice("alternative", alternative, ALTERNATIVES)
    if not atol >= 0:
        raise ValueError(f"Expected `atol` to be at least 0, but got {atol}.")
    scores = _aligned_scores(results)
    stats = _scipy_stats()
    means = {name: float(each.mean()) for name, each in scores.items()}
    ranks = stats.rankdata(-np.stack(list(scores.values())), axis=0).mean(1)
    average_ranks = {name: float(rank) for name, rank in zip(scores, ranks, strict=True)}
    by_rank = test == "wilcoxon"
    order = sorted(scores, key=lambda name: average_ranks[name] if by_rank else -means[name])
    confidence = {
        (a, b): 1 - _p_value(stats, scores[a] - scores[b], test, alternative, atol)
        for a, b in itertools.permutations(order, 2)
    }
    return ModelComparison(
        order=tuple(order),
        means=means,
        average_ranks=average_ranks,
        confidence=confidence,
        test=test,
        alternative=alternative,
        num_images=len(scores[order[0]]),
    )


def _p_value(stats: Any, differences: Scores, test: str, alternative: str, atol: float) -> float:
    """The p-value of a paired test, of the differences (n,) of the scores of two models."""
    if test == "wilcoxon":
        differences = np.where(np.abs(differences) <= atol, 0, differences)
    if not differences.any():
        return 1.0  # no test can tell two models apart that score alike on every image
    if test == "wilcoxon":
        return float(stats.wilcoxon(differences, alternative=alternative).pvalue)
    return float(stats.ttest_1samp(differences, 0, alternative=alternative).pvalue)


@dataclass(frozen=True)
class ModelRanking:
    """Which of several models is better over many datasets, and which of them cannot be told apart.

    Attributes:
        order: Names of the models, the best average rank first, and of equal ranks the better mean.
        average_ranks: Rank of each model, averaged over the datasets: 1 for a model that is the best on every dataset.
        means: Mean score of each model on a dataset, averaged over the datasets.
        ranks: `ranks[dataset][model]` is the rank of the model's mean score on the dataset; equal means share the
            average of their ranks.
        critical_difference: Models whose average ranks differ by less than this cannot be told apart (Nemenyi test).
        p_value: Of the Friedman test, whose null hypothesis is that all models are alike. NaN for fewer than three
            models or two datasets.
        alpha: Probability that the Nemenyi test tells any models apart where all are alike.
        num_datasets: Number of datasets.

    """

    order: tuple[str, ...]
    average_ranks: dict[str, float]
    means: dict[str, float]
    ranks: dict[str, dict[str, float]]
    critical_difference: float
    p_value: float
    alpha: float
    num_datasets: int

    @property
    def groups(self) -> list[tuple[str, ...]]:
        """Largest groups of two models or more that cannot be told apart, the best first; they may overlap."""
        groups, reached = [], 0
        for place, name in enumerate(self.order):
            last = self._alike(name)[1]
            if last > max(place, reached):
                groups.append(self.order[place : last + 1])
                reached = last
        return groups

    def _alike(self, name: str) -> tuple[int, int]:
        """First and last place in the order of the models that cannot be told apart from one."""
        own = self.average_ranks[name]
        distances = [abs(self.average_ranks[other] - own) for other in self.order]
        places = [place for place, distance in enumerate(distances) if distance < self.critical_difference]
        return places[0], places[-1]

    def __str__(self) -> str:
        """Table of the models, the best first, with those that cannot be told apart from each."""
        width = max(len(name) for name in (*self.order, "model"))
        friedman = "not defined" if math.isnan(self.p_value) else f"p = {self.p_value:.2g}"
        critical = f"{self.critical_difference:.2f} (Nemenyi test, alpha {self.alpha:g})"
        lines = [
            f"{self.num_datasets} datasets; Friedman test: {friedman}; critical difference of ranks: {critical}",
            f"{'':3} {'model':<{width}} {'mean':>6} {'rank':>5}  not told apart",
        ]
        for place, name in enumerate(self.order):
            first, last = self._alike(name)
            alike = "-" if first == last else f"#{first + 1} to #{last + 1}"
            head = f"#{place + 1:<2} {name:<{width}} {self.means[name]:>6.3f} {self.average_ranks[name]:>5.2f}  "
            lines.append(head + alike)
        return "\n".join(lines)


def rank_models(results: Mapping[str, Mapping[str, AUPIMOResult]], alpha: float = RANKING_ALPHA) -> ModelRanking:
    r"""Rank models over many datasets by their mean scores, as for a critical-difference diagram.

    The Friedman test asks whether the models differ at all, and the Nemenyi test which of them do: those whose average
    ranks over :math:`N` datasets differ by the critical difference or more,

    .. math:: q_\alpha \sqrt{k (k + 1) / (6 N)}

    for :math:`k` models, where :math:`q_\alpha` is the quantile of the studentized range over :math:`\sqrt 2`. Source:
    J. Demšar, "Statistical Comparisons of Classifiers over Multiple Data Sets", JMLR 7, 2006.

    Args:
        results: Scores of the same two or more models on each dataset, by the name of the dataset, then of the model.
        alpha: Probability, in (0, 1), that the Nemenyi test tells any models apart where all are alike.

    Returns:
        Order, ranks, means, critical difference and p-value, which print as a table.

    Raises:
        ValueError: If there is no dataset, if there are fewer than two models, if a model is missing on a dataset, if
            FPR bounds or shared FPRs differ, if a mean is undefined, or if `alpha` is not in (0, 1).
        ModuleNotFoundError: If scipy is not installed.

    Example:
        >>> import torch
        >>> from aupimo_torchmetrics import AUPIMOResult
        >>> from aupimo_torchmetrics.statistics import rank_models
        >>> low, high = (AUPIMOResult(torch.tensor([score]), (1e-5, 1e-4), (0.0, 1.0)) for score in (0.2, 0.7))
        >>> ranking = rank_models({"tile": {"old": low, "new": high}, "wood": {"old": low, "new": high}})
        >>> ranking.order, ranking.average_ranks["new"], round(ranking.critical_difference, 3)
        (('new', 'old'), 1.0, 1.386)

    """
    if not 0 < alpha < 1:
        raise ValueError(f"Expected `alpha` to be between 0 and 1, but got {alpha}.")
    scores = _dataset_means(results)
    stats = _scipy_stats()
    num_datasets, num_models = scores.shape
    models = list(next(iter(results.values())))
    ranks = stats.rankdata(-scores, axis=1)
    average_ranks = dict(zip(models, ranks.mean(0).tolist(), strict=True))
    means = dict(zip(models, scores.mean(0).tolist(), strict=True))
    quantile = float(stats.studentized_range.ppf(1 - alpha, num_models, np.inf)) / math.sqrt(2)
    return ModelRanking(
        order=tuple(sorted(models, key=lambda name: (average_ranks[name], -means[name]))),
        average_ranks=average_ranks,
        means=means,
        ranks={name: dict(zip(models, row, strict=True)) for name, row in zip(results, ranks.tolist(), strict=True)},
        critical_difference=quantile * math.sqrt(num_models * (num_models + 1) / (6 * num_datasets)),
        p_value=_friedman_p_value(stats, scores),
        alpha=alpha,
        num_datasets=num_datasets,
    )


def _dataset_means(results: Mapping[str, Mapping[str, AUPIMOResult]]) -> Scores:
    """Mean scores (N, k) of k models on N datasets; raise unless all are there and can be ranked."""
    if not results:
        raise ValueError("Expected `results` to hold one dataset or more, but got none.")
    first_dataset, first = next(iter(results.items()))
    if len(first) < 2:
        raise ValueError(f"Expected `results` to hold two models or more, but got {len(first)}.")
    expected = next(iter(first.values()))
    for dataset, by_model in results.items():
        if by_model.keys() != first.keys():
            model = min(by_model.keys() ^ first.keys())
            raise ValueError(
                "Expected `results` to hold the same models on each dataset, "
                f"but {model!r} is missing on {(first_dataset if model in by_model else dataset)!r}."
            )
        for model, result in by_model.items():
            _check_settings(expected, result, f"on {first_dataset!r}", f"for {model!r} on {dataset!r}")
            if math.isnan(result.mean):
                raise ValueError(
                    f"Expected `results` to have scores, but the mean of {model!r} on {dataset!r} is undefined (NaN). "
                    "Leave the dataset out."
                )
    return np.array([[by_model[model].mean for model in first] for by_model in results.values()])


def _friedman_p_value(stats: Any, scores: Scores) -> float:
    """The p-value of the Friedman test of mean scores (N, k); NaN where it is not defined."""
    num_datasets, num_models = scores.shape
    if num_models < 3 or num_datasets < 2:
        return math.nan
    if (scores == scores[:, :1]).all():
        return 1.0  # no test can tell models apart that score alike on every dataset
    return float(stats.friedmanchisquare(*scores.T).pvalue)


def bootstrap_interval(
    result: AUPIMOResult, confidence: float = 0.95, num_resamples: int = 10_000, seed: int = 0
) -> tuple[float, float]:
    """Estimate how far the mean score would vary with other images of the same kind.

    The anomalous images are drawn anew with replacement, and the interval holds the given share of their means (the
    percentile bootstrap). That other normal images would give other thresholds is not part of it.

    Args:
        result: Scores, as :meth:`~aupimo_torchmetrics.AUPIMO.result` returns them.
        confidence: Share of the means that the interval holds, in (0, 1).
        num_resamples: How often to draw.
        seed: Fixes the draws: one seed gives one interval.

    Returns:
        Lower and upper end; NaN if no image has a score.

    Raises:
        ValueError: If `confidence` is not in (0, 1), or `num_resamples` less than 1.
        ModuleNotFoundError: If scipy is not installed.

    Example:
        >>> import torch
        >>> from aupimo_torchmetrics import AUPIMOResult
        >>> from aupimo_torchmetrics.statistics import bootstrap_interval
        >>> result = AUPIMOResult(torch.linspace(0, 1, 100), (1e-5, 1e-4), (0.0, 1.0))
        >>> low, high = bootstrap_interval(result)
        >>> low < result.mean < high
        True

    """
    if not 0 < confidence < 1:
        raise ValueError(f"Expected `confidence` to be between 0 and 1, but got {confidence}.")
    if num_resamples < 1:
        raise ValueError(f"Expected `num_resamples` to be at least 1, but got {num_resamples}.")
    scores = result.aupimos.double().cpu().numpy()
    scores = scores[~np.isnan(scores)]
    if len(scores) == 0:
        return float("nan"), float("nan")
    if scores.min() == scores.max():
        return float(scores[0]), float(scores[0])
    interval = _scipy_stats().bootstrap(
        (scores,),
        np.mean,
        confidence_level=confidence,
        n_resamples=num_resamples,
        method="percentile",
        random_state=np.random.default_rng(seed),
    )
    return float(interval.confidence_interval.low), float(interval.confidence_interval.high)


def _aligned_scores(results: Mapping[str, AUPIMOResult]) -> dict[str, Scores]:
    """Scores (n,) of the anomalous images of each model, image by image the same."""
    _check_comparable(results)
    first_name = next(iter(results))
    keys = _image_keys(results)
    scores = {}
    for name, result in results.items():
        if set(keys[name]) != set(keys[first_name]):
            foreign = min(set(keys[name]) ^ set(keys[first_name]), key=str)
            raise ValueError(
                f"Expected `results` to be of the same images, but {foreign!r} is in only one of {first_name!r} and "
                f"{name!r}."
            )
        places = {key: place for place, key in enumerate(keys[name])}
        if len(places) < len(result.aupimos):
            raise ValueError(f"Expected the images of {name!r} to be distinct, but some have the same path or id.")
        scores[name] = result.aupimos.double().cpu().numpy()[[places[key] for key in keys[first_name]]]
        if not np.array_equal(np.isnan(scores[name]), np.isnan(scores[first_name])):
            raise ValueError(
                f"Expected `results` to have the same normal images, but those of {first_name!r} and {name!r} differ."
            )
    scored = ~np.isnan(scores[first_name])
    if scored.sum() < 2:
        raise ValueError(f"Expected `results` to hold the scores of two images or more, but got {scored.sum()}.")
    return {name: each[scored] for name, each in scores.items()}


def _check_comparable(results: Mapping[str, AUPIMOResult]) -> None:
    """Raise unless there are two models or more, with the same settings and number of images."""
    if len(results) < 2:
        raise ValueError(f"Expected `results` to hold two models or more, but got {len(results)}.")
    (first_name, first), *others = results.items()
    for name, other in others:
        _check_settings(first, other, f"for {first_name!r}", f"for {name!r}")
        if len(other.aupimos) != len(first.aupimos):
            raise ValueError(
                "Expected `results` to be of the same images, "
                f"but got {len(first.aupimos)} of {first_name!r} and {len(other.aupimos)} of {name!r}."
            )


def _check_settings(first: AUPIMOResult, other: AUPIMOResult, first_place: str, other_place: str) -> None:
    """Raise unless two results average over the same FPRs."""
    for setting in ("fpr_bounds", "shared_fpr"):
        values = getattr(first, setting), getattr(other, setting)
        if values[0] != values[1]:
            raise ValueError(
                f"Expected `results` to have the same `{setting}`, "
                f"but got {values[0]!r} {first_place} and {values[1]!r} {other_place}."
            )


def _image_keys(results: Mapping[str, AUPIMOResult]) -> dict[str, list[Any]]:
    """What names each image of each model: paths if all results have them, else image ids, else places."""
    if all(result.paths is not None for result in results.values()):
        return {name: list(result.paths or ()) for name, result in results.items()}
    ids = {name: result.image_ids for name, result in results.items()}
    if all(each is not None and bool((each >= 0).all()) for each in ids.values()):
        return {name: each.tolist() for name, each in ids.items() if each is not None}
    return {name: list(range(len(result.aupimos))) for name, result in results.items()}


def _scipy_stats() -> Any:
    """Return `scipy.stats`, or raise with the remedy."""
    try:
        from scipy import stats  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "Statistical tests need `scipy`, which is not installed. "
            'Please install with `pip install "aupimo-torchmetrics[stats]"`'
        ) from error
    return stats
