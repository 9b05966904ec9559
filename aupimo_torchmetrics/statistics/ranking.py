"""Rank models over many data sets."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from aupimo_torchmetrics._errors import BadDataError
from aupimo_torchmetrics._extras import require
from aupimo_torchmetrics._tables import text_table
from aupimo_torchmetrics.results import AUPIMOResult
from aupimo_torchmetrics.statistics._ties import Scores, best_first, merge_equal
from aupimo_torchmetrics.statistics.paired import check_same_settings

__all__ = ["ModelRanking", "rank_models"]

RANKING_ALPHA = 0.05
"""Level of the test that tells ranked models apart, as in most published critical-difference diagrams."""


@dataclass(frozen=True)
class ModelRanking:
    """Which of several models is better over many data sets, and which of them cannot be told apart.

    Attributes:
        order: Names of the models, the best average rank first, and of equal ranks the better mean.
        average_ranks: Rank of each model, averaged over the data sets: 1 for a model that is the best on every one.
        means: Mean score of each model on a data set, averaged over the data sets.
        ranks: `ranks[dataset][model]` is the rank of the model's mean score on the data set; equal means share the
            average of their ranks.
        critical_difference: Models whose average ranks differ by less than this cannot be told apart (Nemenyi test).
        p_value: Of the Friedman test, whose null hypothesis is that all models are alike. NaN for fewer than three
            models or two data sets.
        alpha: Probability that the Nemenyi test tells models apart although all are alike.
        num_datasets: Number of data sets.

    Example:
        >>> import torch
        >>> from aupimo_torchmetrics import AUPIMOResult
        >>> from aupimo_torchmetrics.statistics import rank_models
        >>> low, high = (AUPIMOResult(torch.tensor([score]), (1e-5, 1e-4), (0.0, 1.0)) for score in (0.2, 0.7))
        >>> ranking = rank_models({"tile": {"old": low, "new": high}, "wood": {"old": low, "new": high}})
        >>> ranking.average_ranks
        {'old': 2.0, 'new': 1.0}
        >>> ranking.groups  # two data sets are too few to tell the models apart
        [('new', 'old')]

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
        for first, name in enumerate(self.order):
            last = self._alike(name)[1]
            if last > max(first, reached):
                groups.append(self.order[first : last + 1])
                reached = last
        return groups

    def _alike(self, name: str) -> tuple[int, int]:
        """First and last position in the order of the models that cannot be told apart from one."""
        own = self.average_ranks[name]
        distances = [abs(self.average_ranks[other] - own) for other in self.order]
        alike = [position for position, distance in enumerate(distances) if distance < self.critical_difference]
        return alike[0], alike[-1]

    def __str__(self) -> str:
        """Table of the models, the best first, with those that cannot be told apart from each."""
        friedman = "not defined" if math.isnan(self.p_value) else f"p = {self.p_value:.2g}"
        critical = f"{self.critical_difference:.2f} (Nemenyi test, alpha {self.alpha:g})"
        title = (
            f"{self.num_datasets} data sets; Friedman test: {friedman}; critical difference of ranks: {critical}; "
            "ordered by average rank"
        )
        rows = [["", "model", "mean", "rank", "not told apart"]]
        for position, name in enumerate(self.order):
            first, last = self._alike(name)
            alike = "-" if first == last else f"#{first + 1} to #{last + 1}"
            rows.append([f"#{position + 1}", name, f"{self.means[name]:.3f}", f"{self.average_ranks[name]:.2f}", alike])
        return f"{title}\n{text_table(rows, '<<>><')}"


def rank_models(results: Mapping[str, Mapping[str, AUPIMOResult]], alpha: float = RANKING_ALPHA) -> ModelRanking:
    """Rank models over many data sets by their mean scores, as for a critical-difference diagram.

    The Friedman test asks whether the models differ at all, and the Nemenyi test which of them do: those whose average
    ranks over N data sets differ by the critical difference or more,

        q_alpha * sqrt(k * (k + 1) / (6 * N))

    for k models, where `q_alpha` is the quantile of the studentized range over the square root of 2. Source: J. Demšar,
    "Statistical Comparisons of Classifiers over Multiple Data Sets", JMLR 7, 2006. Mean scores that differ by less than
    1e-12 are equal.

    Args:
        results: Scores of the same two or more models on each data set, by the name of the data set, then of the model.
        alpha: Probability, in (0, 1), that the Nemenyi test tells models apart although all are alike.

    Returns:
        Order, ranks, means, critical difference and p-value, which print as a table.

    Raises:
        ValueError: If there is no data set, if there are fewer than two models, if a model is missing on one, if
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
    every = [(dataset, model, each) for dataset, by in results.items() for model, each in by.items()]
    for dataset, model, result in every:
        check_same_settings(every[0][2], result, f"on {every[0][0]!r}", f"for {model!r} on {dataset!r}")
    means = {dataset: {model: result.mean for model, result in by.items()} for dataset, by in results.items()}
    return rank_means(means, alpha)


def rank_means(means_of: Mapping[str, Mapping[str, float]], alpha: float = RANKING_ALPHA) -> ModelRanking:
    """Rank models as `rank_models` does, by any metric: its value of the same models on each data set."""
    scores = _as_rows(means_of)
    require("scipy", extra="stats", needed_by="rank_models")
    from scipy import stats  # noqa: PLC0415

    num_datasets, num_models = scores.shape
    models = list(next(iter(means_of.values())))
    merged = merge_equal(scores, axis=1)
    ranks = stats.rankdata(-merged, axis=1)
    average_ranks = dict(zip(models, ranks.mean(0).tolist(), strict=True))
    means = dict(zip(models, scores.mean(0).tolist(), strict=True))
    quantile = float(stats.studentized_range.ppf(1 - alpha, num_models, np.inf)) / math.sqrt(2)
    return ModelRanking(
        order=tuple(sorted(best_first(means), key=lambda name: average_ranks[name])),
        average_ranks=average_ranks,
        means=means,
        ranks={name: dict(zip(models, row, strict=True)) for name, row in zip(means_of, ranks.tolist(), strict=True)},
        critical_difference=quantile * math.sqrt(num_models * (num_models + 1) / (6 * num_datasets)),
        p_value=_friedman_p_value(merged),
        alpha=alpha,
        num_datasets=num_datasets,
    )


def _as_rows(means: Mapping[str, Mapping[str, float]]) -> Scores:
    """Mean scores (N, k) of k models on N data sets; raise unless all are there and can be ranked."""
    if not means:
        raise ValueError("Expected `results` to hold one data set or more, but got none.")
    first_dataset, first = next(iter(means.items()))
    if len(first) < 2:
        raise ValueError(f"Expected `results` to hold two models or more, but got {len(first)}.")
    for dataset, by_model in means.items():
        if by_model.keys() != first.keys():
            model = min(by_model.keys() ^ first.keys())
            raise BadDataError(
                "Expected `results` to hold the same models on each data set, "
                f"but {model!r} is missing on {(first_dataset if model in by_model else dataset)!r}."
            )
        for model, mean in by_model.items():
            if math.isnan(mean):
                raise BadDataError(
                    f"Expected `results` to have scores, but the mean of {model!r} on {dataset!r} is undefined (NaN). "
                    "Rank without this data set."
                )
    return np.array([[by_model[model] for model in first] for by_model in means.values()])


def _friedman_p_value(scores: Scores) -> float:
    """The p-value of the Friedman test of mean scores (N, k) whose ties are the same float; NaN if undefined."""
    from scipy import stats  # noqa: PLC0415

    num_datasets, num_models = scores.shape
    if num_models < 3 or num_datasets < 2:
        return math.nan
    if (scores == scores[:, :1]).all():
        return 1.0  # no test can tell models apart that have equal scores on every data set
    return float(stats.friedmanchisquare(*scores.T).pvalue)
