"""Compare models image by image, by paired tests."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from aupimo_torchmetrics._extras import require
from aupimo_torchmetrics._settings import TIE_TOLERANCE, Alternative, PairedTestName, check_choice
from aupimo_torchmetrics.results import AUPIMOResult
from aupimo_torchmetrics.statistics.distribution import Scores


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
    test: PairedTestName
    alternative: Alternative
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
    test: PairedTestName = "wilcoxon",
    alternative: Alternative = "greater",
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
    check_choice("test", test, PairedTestName)
    check_choice("alternative", alternative, Alternative)
    if not atol >= 0:
        raise ValueError(f"Expected `atol` to be at least 0, but got {atol}.")
    scores = _aligned_scores(results)
    require("scipy", extra="stats", needed_by="compare_models")
    from scipy import stats  # noqa: PLC0415

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


def _p_value(stats: Any, differences: Scores, test: PairedTestName, alternative: Alternative, atol: float) -> float:
    """The p-value of a paired test, of the differences (n,) of the scores of two models."""
    if test == "wilcoxon":
        differences = np.where(np.abs(differences) <= atol, 0, differences)
    if not differences.any():
        return 1.0  # no test can tell two models apart that score alike on every image
    if test == "wilcoxon":
        return float(stats.wilcoxon(differences, alternative=alternative).pvalue)
    return float(stats.ttest_1samp(differences, 0, alternative=alternative).pvalue)


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
        check_same_settings(first, other, f"for {first_name!r}", f"for {name!r}")
        if len(other.aupimos) != len(first.aupimos):
            raise ValueError(
                "Expected `results` to be of the same images, "
                f"but got {len(first.aupimos)} of {first_name!r} and {len(other.aupimos)} of {name!r}."
            )


def check_same_settings(first: AUPIMOResult, other: AUPIMOResult, first_place: str, other_place: str) -> None:
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
