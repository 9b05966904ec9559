"""Statistics agree with those that the official package gives on published scores, ties included."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.cbook import boxplot_stats

from aupimo_torchmetrics import AUPIMOResult
from aupimo_torchmetrics.statistics import (
    HIGH_OUTLIER,
    LOW_OUTLIER,
    bootstrap_interval,
    compare_models,
    per_image_statistics,
)

PUBLISHED = Path(__file__).parent / "data" / "published"
EXPECTED = json.loads((PUBLISHED / "expected_statistics.json").read_text(encoding="utf-8"))
MODELS = sorted(path.name for path in (PUBLISHED / "benchmark").iterdir())
BOUNDS = (1e-5, 1e-4)
NAMES = {
    "whislo": "low whisker",
    "q1": "first quartile",
    "med": "median",
    "mean": "mean",
    "q3": "third quartile",
    "whishi": "high whisker",
}
"""Our names of the statistics that matplotlib's box plot and the official package abbreviate."""
OUTLIERS = {"none": "none", "hi": "high", "lo": "low", "both": "both"}

ROUNDING = 1e-12
"""Sums of float64 in another order."""


def published(model: str, category: str) -> AUPIMOResult:
    """Load published scores."""
    return AUPIMOResult.load(PUBLISHED / "benchmark" / model / "mvtec" / category / "aupimo" / "aupimos.json")


def make_result(scores: list[float], **settings: Any) -> AUPIMOResult:
    """Make a result with the given scores."""
    return AUPIMOResult(
        torch.tensor(scores, dtype=torch.float64), settings.pop("fpr_bounds", BOUNDS), (0, 1), **settings
    )


def our_name(name: str) -> str:
    """Translate the official name of a statistic."""
    return LOW_OUTLIER if name.startswith("outlo") else HIGH_OUTLIER if name.startswith("outhi") else NAMES[name]


SMALL_SETS = [(np.random.default_rng(seed).integers(0, 5, size=4 + seed % 7) / 4).tolist() for seed in range(40)]
"""Few scores with ties."""

BOX_PLOTS = [
    (category, model, policy) for category in EXPECTED for model in EXPECTED[category]["boxplot"] for policy in OUTLIERS
]


@pytest.mark.parametrize(("category", "model", "policy"), BOX_PLOTS)
def test_representative_images_are_the_official_ones(category: str, model: str, policy: str) -> None:
    """Statistics have the official values, and the images that stand for them are as near to these.

    Of several images as near the official package takes any, so images are compared where one is the nearest.
    """
    result = published(model, category)
    scores = result.aupimos.tolist()
    anomalous = result.aupimos.isfinite().nonzero().flatten().tolist()  # the official places leave out normal images
    expected = sorted(
        (our_name(each["stat_name"]), each["stat_value"], anomalous[each["image_idx"]])
        for each in EXPECTED[category]["boxplot"][model][policy]
    )
    actual = per_image_statistics(result, outliers=OUTLIERS[policy])
    for statistic, (name, value, image) in zip(sorted(actual), expected, strict=True):
        assert statistic.name == name
        assert statistic.value == pytest.approx(value, abs=ROUNDING)
        assert abs(statistic.score - value) == pytest.approx(abs(scores[image] - value), abs=ROUNDING)
        distances = [abs(score - value) for score in scores]
        if distances.count(distances[image]) == 1:
            assert statistic.image == image
    assert [statistic.score for statistic in actual] == sorted(statistic.score for statistic in actual)
    assert all(scores[statistic.image] == statistic.score for statistic in actual)


@pytest.mark.parametrize("scores", [[0.0, 1.0, 1.0, 1.0], [0.0, 0.0, 0.0, 1.0], [0.3], [0.1, 0.9], *SMALL_SETS])
def test_statistics_are_those_of_a_box_plot(scores: list[float]) -> None:
    """Quartiles, whiskers and outliers are those that matplotlib draws, also where a whisker has no score to end at."""
    (expected,) = boxplot_stats(scores)
    expected = {NAMES[name]: expected[name] for name in NAMES} | {"outliers": sorted(expected["fliers"])}
    statistics = per_image_statistics(make_result(scores), outliers="both")
    actual: dict[str, Any] = {each.name: each.value for each in statistics if "outlier" not in each.name}
    actual["outliers"] = sorted(each.value for each in statistics if "outlier" in each.name)
    assert actual.pop("outliers") == expected.pop("outliers")
    assert actual == pytest.approx(expected, abs=ROUNDING)


def test_one_image_stands_for_one_statistic_where_another_is_as_near() -> None:
    """Of images with equal scores each statistic gets its own; an image alone stands for all."""
    ties = per_image_statistics(make_result([0.5] * 6 + [math.nan]))
    assert sorted(statistic.image for statistic in ties) == [0, 1, 2, 3, 4, 5]
    alone = per_image_statistics(make_result([math.nan, 0.5]))
    assert {statistic.image for statistic in alone} == {1}
    assert len(alone) == 6


def test_tolerance_bounds_how_far_an_image_may_be() -> None:
    """An image takes another's place only if it is at most as far from the value as the tolerance says."""
    result = make_result([0.0, 0.25, 0.5, 0.75, 1.0])  # mean and median are 0.5
    for tolerance, image in ((0.24, 2), (0.26, 3)):
        by_name = {statistic.name: statistic.image for statistic in per_image_statistics(result, tolerance=tolerance)}
        assert (by_name["median"], by_name["mean"]) == (2, image)


def test_statistics_of_nothing() -> None:
    """Without a score there is no statistic."""
    assert per_image_statistics(make_result([math.nan, math.nan])) == []
    assert all(math.isnan(end) for end in bootstrap_interval(make_result([math.nan])))


COMPARISONS = [
    (category, test, alternative)
    for category in EXPECTED
    for test in ("wilcoxon", "ttest")
    for alternative in ("less", "greater", "two-sided")
]


@pytest.mark.parametrize(("category", "test", "alternative"), COMPARISONS)
def test_comparisons_are_the_official_ones(category: str, test: str, alternative: str) -> None:
    """Order, ranks, means and the confidence for each ordered pair of 13 models are those of the official package."""
    expected = EXPECTED[category][{"wilcoxon": "wilcoxon", "ttest": "ttest_rel"}[test] + "/" + alternative]
    comparison = compare_models({model: published(model, category) for model in MODELS}, test, alternative)
    assert list(comparison.order) == expected["order"]
    assert comparison.means == pytest.approx(EXPECTED[category]["mean"], abs=ROUNDING)
    confidences = {tuple(pair.split("|")): value for pair, value in expected["confidences"].items()}
    assert len(confidences) == 13 * 12
    # 1 - p is rounded where p is small
    assert comparison.confidence == pytest.approx(confidences, abs=1e-9)
    if test == "wilcoxon":
        ranks = [comparison.average_ranks[model] for model in comparison.order]
        assert ranks == pytest.approx(expected["average_ranks"], abs=ROUNDING)


def test_images_in_another_order_are_aligned() -> None:
    """Paths, or else ids, say which scores belong to one image."""
    scores, others = [0.1, 0.2, math.nan, 0.4, 0.9], [0.3, 0.1, math.nan, 0.5, 0.8]
    expected = compare_models({"a": make_result(scores), "b": make_result(others)})
    paths = [f"{place}.png" for place in range(5)]
    shuffled = [3, 1, 4, 0, 2]
    in_other_order = {
        "paths": (paths, [paths[place] for place in shuffled]),
        "image_ids": (torch.arange(5), torch.tensor(shuffled)),
    }
    for name, (own, other) in in_other_order.items():
        b = make_result([others[place] for place in shuffled], **{name: other})
        actual = compare_models({"a": make_result(scores, **{name: own}), "b": b})
        assert actual.confidence == expected.confidence
        assert actual.order == expected.order


def test_small_differences_are_ties() -> None:
    """Models whose scores differ by no more than the tolerance are not told apart by the Wilcoxon test."""
    a, b = make_result([0.1, 0.5, 0.9, 0.7]), make_result([0.101, 0.501, 0.901, 0.701])
    assert compare_models({"a": a, "b": b}, atol=2e-3).confidence["b", "a"] == 0
    assert compare_models({"a": a, "b": b}, atol=0).confidence["b", "a"] > 0.9


def test_equal_models_are_not_told_apart() -> None:
    """The confidence is 0 if all scores are equal, in either test, and not NaN."""
    a, b = make_result([0.1, 0.5, 0.9]), make_result([0.1, 0.5, 0.9])
    for test in ("wilcoxon", "ttest"):
        assert compare_models({"a": a, "b": b}, test).confidence["a", "b"] == 0


def test_a_comparison_prints_as_a_table() -> None:
    """The table has a row a model, the best first, with mean, rank and confidences."""
    comparison = compare_models(
        {"worse": make_result([0.1, 0.2, 0.3, 0.2]), "better": make_result([0.5, 0.6, 0.7, 0.9])}
    )
    title, head, best, second = str(comparison).splitlines()
    assert title.startswith("4 images")
    assert head.split() == ["model", "mean", "rank", "#1", "#2"]
    assert best.split() == ["#1", "better", "0.675", "1.00", "-", f"{comparison.confidence['better', 'worse']:.3f}"]
    assert second.split()[:4] == ["#2", "worse", "0.200", "2.00"]


REFUSED = {
    "two models or more": {"a": make_result([0.1, 0.2])},
    "same `fpr_bounds`": {"a": make_result([0.1, 0.2]), "b": make_result([0.1, 0.2], fpr_bounds=(1e-4, 1e-3))},
    "same `shared_fpr`": {"a": make_result([0.1, 0.2]), "b": make_result([0.1, 0.2], shared_fpr="max")},
    "but got 2 of 'a' and 3 of 'b'": {"a": make_result([0.1, 0.2]), "b": make_result([0.1, 0.2, 0.3])},
    "same normal images": {"a": make_result([0.1, 0.2, math.nan]), "b": make_result([math.nan, 0.2, 0.1])},
    "'y.png' is in only one": {
        "a": make_result([0.1, 0.2], paths=["x.png", "y.png"]),
        "b": make_result([0.1, 0.2], paths=["x.png", "z.png"]),
    },
    "some have the same path or id": {
        "a": make_result([0.1, 0.2], paths=["x.png", "x.png"]),
        "b": make_result([0.1, 0.2], paths=["x.png", "x.png"]),
    },
    "two images or more": {"a": make_result([0.1, math.nan]), "b": make_result([0.2, math.nan])},
}


@pytest.mark.parametrize("reason", REFUSED)
def test_results_that_cannot_be_compared(reason: str) -> None:
    """Results of other images, classes or bounds are refused with the reason."""
    with pytest.raises(ValueError, match=reason):
        compare_models(REFUSED[reason])


def test_bootstrap_interval_is_fixed_by_the_seed() -> None:
    """One seed gives one interval, another seed another, and all hold the mean."""
    result = published("padim_r18", "zipper")
    first, again, other = (bootstrap_interval(result, seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert first != other
    for low, high in (first, other):
        assert low < result.mean < high


def test_bootstrap_interval_is_as_wide_as_the_standard_error_says() -> None:
    """For many images the interval is that of the normal approximation, and more confidence makes it wider."""
    scores = np.random.default_rng(0).uniform(size=2000)
    result = make_result(scores.tolist())
    low, high = bootstrap_interval(result, seed=3)
    half = 1.96 * scores.std() / math.sqrt(len(scores))
    # the ends of an interval of 10,000 draws vary by some percent of its width
    assert (low, high) == pytest.approx((scores.mean() - half, scores.mean() + half), abs=0.1 * half)
    wider = bootstrap_interval(result, confidence=0.99, seed=3)
    assert wider[0] < low < high < wider[1]


def test_bootstrap_interval_of_equal_scores_is_a_point() -> None:
    """Where all scores are equal, so are all means."""
    assert bootstrap_interval(make_result([0.25, 0.25, math.nan])) == (0.25, 0.25)


def test_settings_out_of_range() -> None:
    """A setting out of its range is a ValueError that names it."""
    result = make_result([0.1, 0.5])
    with pytest.raises(ValueError, match="`outliers` to be 'none' or"):
        per_image_statistics(result, outliers="some")
    with pytest.raises(ValueError, match="`tolerance` to be at least 0, but got -1"):
        per_image_statistics(result, tolerance=-1)
    with pytest.raises(ValueError, match="`confidence` to be between 0 and 1, but got 95"):
        bootstrap_interval(result, confidence=95)
    with pytest.raises(ValueError, match="`num_resamples` to be at least 1, but got 0"):
        bootstrap_interval(result, num_resamples=0)
    for setting, value in (("test", "anova"), ("alternative", "better"), ("atol", -1)):
        with pytest.raises(ValueError, match=f"`{setting}` to be"):
            compare_models({"a": result, "b": result}, **{setting: value})
