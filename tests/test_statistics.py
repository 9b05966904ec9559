"""Statistics agree with those that the official package gives on published scores, ties included."""

import itertools
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from matplotlib.cbook import boxplot_stats
from scipy import stats
from scipy.stats import chi2

from aupimo_torchmetrics import AUPIMOResult
from aupimo_torchmetrics.statistics import bootstrap_interval, compare_models, per_image_statistics, rank_models
from aupimo_torchmetrics.statistics._ties import Scores
from aupimo_torchmetrics.statistics.distribution import HIGH_OUTLIER, LOW_OUTLIER

PUBLISHED = Path(__file__).parent / "data" / "published"
EXPECTED = json.loads((PUBLISHED / "expected_statistics.json").read_text(encoding="utf-8"))
MODELS = sorted(path.name for path in (PUBLISHED / "benchmark").iterdir())
BOUNDS = (1e-5, 1e-4)
NAMES = {"whislo": "low whisker", "q1": "first quartile", "med": "median"}
NAMES |= {"mean": "mean", "q3": "third quartile", "whishi": "high whisker"}
"""Our names of the statistics that matplotlib's box plot and the official package abbreviate."""
OUTLIERS = {"none": "none", "hi": "high", "lo": "low", "both": "both"}

ROUNDING = 1e-12
"""Sums of float64 in another order."""


def published(model: str, category: str) -> AUPIMOResult:
    """Load published scores."""
    return AUPIMOResult.load(PUBLISHED / "benchmark" / model / "mvtec" / category / "aupimo" / "aupimos.json")


def make_result(scores: Any, **settings: Any) -> AUPIMOResult:
    """Make a result with the given scores."""
    scores = torch.as_tensor(scores, dtype=torch.float64)
    return AUPIMOResult(scores, settings.pop("fpr_bounds", BOUNDS), (0, 1), **settings)


def make_results(*scores: Any) -> dict[str, AUPIMOResult]:
    """Make results of models "a", "b", ... with the given scores."""
    return dict(zip("abcdefgh", map(make_result, scores), strict=False))


def our_name(name: str) -> str:
    """Translate the official name of a statistic."""
    return LOW_OUTLIER if name.startswith("outlo") else HIGH_OUTLIER if name.startswith("outhi") else NAMES[name]


SMALL_SETS = [(np.random.default_rng(seed).integers(0, 5, size=4 + seed % 7) / 4).tolist() for seed in range(40)]
"""Few scores with ties."""

BOX_PLOTS = [(category, model) for category in EXPECTED for model in EXPECTED[category]["boxplot"]]


@pytest.mark.parametrize("policy", OUTLIERS)
@pytest.mark.parametrize(("category", "model"), BOX_PLOTS)
def test_representative_images_are_the_official_ones(category: str, model: str, policy: str) -> None:
    """Statistics have the official values, and the images that stand for them are as near to these.

    Of several images as near the official package takes any, so images are compared where one is the nearest.
    """
    result = published(model, category)
    scores = result.aupimos.tolist()
    anomalous = result.aupimos.isfinite().nonzero().flatten().tolist()  # official indices do not count normal images
    expected = sorted(
        (our_name(each["stat_name"]), each["stat_value"], anomalous[each["image_idx"]])
        for each in EXPECTED[category]["boxplot"][model][policy]
    )
    actual = per_image_statistics(result, outliers=OUTLIERS[policy])
    for statistic, (name, value, image) in zip(
        sorted(actual, key=lambda each: (each.name, each.value)), expected, strict=True
    ):
        assert statistic.name == name
        assert statistic.value == pytest.approx(value, abs=ROUNDING)
        assert abs(statistic.score - value) == pytest.approx(abs(scores[image] - value), abs=ROUNDING)
        nearest = abs(scores[image] - value)
        if sum(abs(score - value) < nearest + ROUNDING for score in scores) == 1:
            assert statistic.image == image
    assert [statistic.score for statistic in actual] == sorted(statistic.score for statistic in actual)
    assert all(scores[statistic.image] == statistic.score for statistic in actual)


@pytest.mark.parametrize("scores", [[0.0, 1.0, 1.0, 1.0], [0.0, 0.0, 0.0, 1.0], [0.3], [0.1, 0.9], *SMALL_SETS])
def test_statistics_are_those_of_a_box_plot(scores: list[float]) -> None:
    """Quartiles, whiskers and outliers are those that matplotlib draws, also where a whisker has no score to end at."""
    (expected,) = boxplot_stats(scores)
    expected = {NAMES[name]: expected[name] for name in NAMES} | {"outliers": sorted(expected["fliers"])}
    found = per_image_statistics(make_result(scores), outliers="both")
    assert sorted(each.value for each in found if "outlier" in each.name) == expected.pop("outliers")
    actual = {each.name: each.value for each in found if "outlier" not in each.name}
    assert actual == pytest.approx(expected, abs=ROUNDING)


def test_one_image_stands_for_one_statistic_where_another_is_as_near() -> None:
    """Of images with equal scores each statistic gets its own; an image alone stands for all."""
    ties = per_image_statistics(make_result([0.5] * 6 + [math.nan]))
    assert sorted(statistic.image for statistic in ties) == [0, 1, 2, 3, 4, 5]
    alone = per_image_statistics(make_result([math.nan, 0.5]))
    assert [statistic.image for statistic in alone] == [1] * 6


def test_tolerance_bounds_how_far_an_image_may_be() -> None:
    """An image is chosen instead of the nearest only if it is at most as far from the value as the tolerance says."""
    result = make_result([0.0, 0.25, 0.5, 0.75, 1.0])  # mean and median are 0.5
    for tolerance, image in ((0.24, 2), (0.26, 3)):
        by_name = {statistic.name: statistic.image for statistic in per_image_statistics(result, tolerance=tolerance)}
        assert (by_name["median"], by_name["mean"]) == (2, image)


TESTS = ("wilcoxon", "ttest")
ALTERNATIVES = ("less", "greater", "two-sided")


PAIRS = [("bottle", "wilcoxon", "greater"), ("metal_nut", "wilcoxon", "two-sided"), ("zipper", "wilcoxon", "less")]
PAIRS += [("bottle", "ttest", "two-sided"), ("metal_nut", "ttest", "less"), ("zipper", "ttest", "greater")]
"""Each category, and each alternative, with each test."""


@pytest.mark.parametrize(("category", "test", "alternative"), PAIRS)
def test_comparisons_are_the_official_ones(category: str, test: str, alternative: str) -> None:
    """Order, ranks, means and the confidence for each ordered pair of 13 models are those of the official package.

    On two images of metal_nut scores of models differ by 8e-16. The official package ranks one above the other, here
    they share a rank. So average ranks may differ by half a rank for each such pair, and those of other models agree.
    """
    expected = EXPECTED[category][{"wilcoxon": "wilcoxon", "ttest": "ttest_rel"}[test] + "/" + alternative]
    results = {model: published(model, category) for model in MODELS}
    comparison = compare_models(results, test, alternative)
    assert list(comparison.order) == expected["order"]
    assert comparison.means == pytest.approx(EXPECTED[category]["mean"], abs=ROUNDING)
    confidences = {tuple(pair.split("|")): value for pair, value in expected["confidences"].items()}
    assert len(confidences) == 13 * 12
    # 1 - p is rounded where p is small
    assert comparison.confidence == pytest.approx(confidences, abs=1e-9)
    if test == "wilcoxon":
        # how often the score of each model differs from another's on the same image by rounding only
        scores = torch.stack([result.aupimos for result in results.values()])
        gaps = (scores[:, None] - scores).abs()
        num_rounded = dict(zip(results, ((gaps > 0) & (gaps < ROUNDING)).sum((1, 2)).tolist(), strict=True))
        assert sum(num_rounded.values()) == (6 if category == "metal_nut" else 0)
        for model, rank in zip(expected["order"], expected["average_ranks"], strict=True):
            most = num_rounded[model] / 2 / comparison.num_images
            assert comparison.average_ranks[model] == pytest.approx(rank, abs=most + ROUNDING)


def test_scores_that_are_nearly_equal() -> None:
    """The Wilcoxon test does not tell apart what differs by the tolerance or less, and no test what is equal."""
    a, b = [0.1, 0.5, 0.9, 0.7], [0.101, 0.501, 0.901, 0.701]
    assert compare_models(make_results(a, b), atol=2e-3).confidence["b", "a"] == 0
    assert compare_models(make_results(a, b), atol=0).confidence["b", "a"] > 0.9
    for test in TESTS:
        assert compare_models(make_results(a, a), test).confidence["a", "b"] == 0


def test_a_comparison_prints_as_a_table() -> None:
    """The table has a row a model, the best first, with mean, rank, confidences and the bootstrap interval."""
    results = {"worse": make_result([0.1, 0.2, 0.3, 0.2, 0.2]), "better": make_result([0.5, 0.6, 0.7, 0.9, 0.7])}
    comparison = compare_models(results)
    assert comparison.intervals == {model: bootstrap_interval(result) for model, result in results.items()}
    title, head, best, second = str(comparison).splitlines()
    assert title.startswith("for these thresholds, 5 images matched by position; ")
    assert head.split() == ["model", "mean", "rank", "#1", "#2", "95%", "interval", "of", "the", "mean"]
    for line, start in ((best, "#1 better 0.680 1.00 - 0.968"), (second, "#2 worse 0.200 2.00 0.000 -")):
        low, high = comparison.intervals[start.split()[1]]
        assert line.split() == [*start.split(), f"{low:.3f}", "to", f"{high:.3f}"]


def test_intervals_of_few_scores_or_draws() -> None:
    """Where all scores are equal, so are all means; one draw gives its mean as both ends; of four it is NaN."""
    assert bootstrap_interval(make_result([*[0.25] * 5, math.nan])) == (0.25, 0.25)
    low, high = bootstrap_interval(make_result([0.1, 0.5, 0.9, 0.3, 0.5]), num_resamples=1)
    assert 0.1 <= low == high <= 0.9
    for few in ([math.nan], [math.nan, 0.5, 0.1, 0.2, 0.3]):
        assert all(math.isnan(end) for end in bootstrap_interval(make_result(few)))
    assert per_image_statistics(make_result([math.nan, math.nan])) == []


@pytest.mark.parametrize(("num_images", "confidence"), [(7, 0.95), (113, 0.99), (500, 0.8)])
def test_interval_of_scores_is_that_of_another_bootstrap(num_images: int, confidence: float) -> None:
    """It is the percentile bootstrap of scipy at expanded quantiles, up to the chance of other draws."""
    scores = np.random.default_rng(1).uniform(size=num_images)
    settings = {"n_resamples": 20_000, "method": "percentile", "random_state": np.random.default_rng(0)}
    draws = stats.bootstrap((scores,), np.mean, **settings).bootstrap_distribution
    quantile = stats.t.ppf((1 - confidence) / 2, num_images - 1) * np.sqrt(num_images / (num_images - 1))
    expected = np.quantile(draws, [stats.norm.cdf(quantile), stats.norm.cdf(-quantile)])
    interval = bootstrap_interval(make_result(scores), confidence, 20_000)
    np.testing.assert_allclose(interval, expected, atol=0.15 * draws.std())


AWKWARD = {
    "two images": [[0.1, 0.9], [0.3, 0.2], [0.3, 0.2]],
    "all zero": [[0.0] * 5, [0.0] * 5],
    "all one": [[1.0] * 60, [1.0] * 60],
    "equal but for rounding": [[0.1 + 0.2, 1.0, 0.5], [0.3, 1 - 2**-53, 0.5]],
    "one difference": [[0.5] * 20, [*[0.5] * 19, 1.0]],
    "nearly the same difference": [[0.1, 0.2, 0.3], [0.2, 0.3, 0.4 + 1e-11]],
    "differences that add up to 0": [[0.25, 0.75, 0.5], [0.75, 0.25, 0.5]],
    "ties of a large sample": [[0.0, 0.5] * 40, [0.5, 0.0] * 39 + [1.0, 1.0]],
    "differences of 1e-300": [[0.0, 1e-300, 0.0], [1e-300, 0.0, 2e-300]],
    "one image far off": [[1e-9] * 9, [*[2e-9] * 8, 1.0]],
}


@pytest.mark.parametrize("case", AWKWARD)
def test_awkward_scores_are_compared_without_a_warning(case: str) -> None:
    """Warnings are errors here; each confidence is a number in [0, 1] whatever the scores are."""
    results = make_results(*AWKWARD[case])
    for test, alternative, atol in itertools.product(TESTS, ALTERNATIVES, (0.0, 1e-3)):
        comparison = compare_models(results, test, alternative, atol)
        assert all(0 <= confidence <= 1 for confidence in comparison.confidence.values())
    rank_models({"x": results, "y": results})


def signed_rank_p_values(differences: Scores) -> dict[str, float]:
    """p-values of the Wilcoxon test, by trying all signs that the differences but those of zero could have."""
    sizes = [round(abs(float(each)), 9) for each in differences if abs(each) > 1e-9]
    ranks = [sum(other < size for other in sizes) + (sizes.count(size) + 1) / 2 for size in sizes]
    observed = sum(rank for rank, each in zip(ranks, differences[np.abs(differences) > 1e-9], strict=True) if each > 0)
    sums = [sum(itertools.compress(ranks, signs)) for signs in itertools.product((0, 1), repeat=len(ranks))]
    greater, less = (
        sum(each) / len(sums) for each in zip(*((s >= observed, s <= observed) for s in sums), strict=True)
    )
    return {"greater": greater, "less": less, "two-sided": min(1, 2 * min(greater, less))}


@pytest.mark.parametrize(("num_images", "num_levels"), [(2, 1000), (13, 5), (14, 2), (40, 1), (120, 1000)])
def test_few_differences_are_compared_exactly(num_images: int, num_levels: int) -> None:
    """What decides is how many differences are not zero, not how many images there are, with ties and without."""
    random = np.random.default_rng(num_images + num_levels)
    for num_different in (*range(min(num_images, 9)), min(num_images, 12)):
        a = np.zeros(num_images)
        a[:num_different] = random.choice([-1, 1], num_different) * random.integers(1, num_levels + 1, num_different)
        scores = np.stack([0.5 + a / num_levels / 2, np.full(num_images, 0.5)])
        for alternative, expected in signed_rank_p_values(scores[0] - scores[1]).items():
            actual = compare_models(make_results(*scores), "wilcoxon", alternative, atol=0).confidence["a", "b"]
            assert actual == pytest.approx(1 - expected, abs=ROUNDING)


@pytest.mark.parametrize("test", TESTS)
@pytest.mark.parametrize(
    ("num_images", "num_levels"), [(2, 1000), (13, 1000), (50, 3), (50, 1000), (51, 1000), (200, 2)]
)
def test_many_differences_are_compared_as_scipy_would(num_images: int, num_levels: int, test: Any) -> None:
    """The p-values are those that scipy gives when it chooses the method itself."""
    random = np.random.default_rng(num_images + num_levels)
    a, b = random.integers(0, num_levels, size=(2, num_images)) / (num_levels - 1)
    a[:2], b[:2] = (1, 0), (0, 0.5)  # the differences are never all the same
    differences = a - b
    if test == "wilcoxon":
        sizes = np.abs(differences).round(12)  # equal differences, such as 0.3 - 0.2 and 0.2 - 0.1, as the same float
        expected = stats.wilcoxon(np.copysign(sizes, differences), alternative="greater").pvalue
    else:
        expected = stats.ttest_rel(a, b, alternative="greater").pvalue
    comparison = compare_models(make_results(a, b), test, atol=0)
    assert comparison.confidence["a", "b"] == pytest.approx(1 - expected, abs=ROUNDING)


def test_confidences_are_rounded_down() -> None:
    """No confidence is written as more than it is: 1.000 stands for certainty alone."""
    shown = {1.0: "1.000", 0.9999: "0.999", 0.0004: "0.000", 1 - 0.066: "0.934", 0.29: "0.290", 1 - 2**-19: "0.999"}
    comparison = compare_models(make_results([0.5, 0.6], [0.5, 0.6]))
    for value, text in shown.items():
        table = replace(comparison, confidence={("a", "b"): value, ("b", "a"): 0.0}).rows()
        assert table[1][5] == text


def test_a_constant_difference_is_certain_to_the_t_test() -> None:
    """Without any spread p is 0 if the difference has the sign that is asked for, and 1 if not."""
    results = {"low": make_result([0.1, 0.3, 0.7]), "high": make_result([0.2, 0.4, 0.8])}  # 0.1 but for rounding
    expected = {"greater": 1, "less": 0, "two-sided": 1}
    for alternative, confidence in expected.items():
        comparison = compare_models(results, "ttest", alternative)
        assert comparison.confidence["high", "low"] == confidence
    assert comparison.order == ("high", "low")


def made_up_datasets(*scores: dict[str, float]) -> dict[str, dict[str, AUPIMOResult]]:
    """Datasets "0", "1", ... of one image each, on which the models score as given."""
    return {
        str(number): {model: make_result([score, math.nan]) for model, score in each.items()}
        for number, each in enumerate(scores)
    }


# Demšar 2006, JMLR 7, table 5 (a): two-tailed Nemenyi test, alpha 0.05, and its line for alpha 0.1.
CRITICAL_VALUES = {(2, 0.05): 1.960, (5, 0.05): 2.728, (10, 0.05): 3.164, (2, 0.1): 1.645, (10, 0.1): 2.920}


@pytest.mark.parametrize(("num_models", "alpha"), CRITICAL_VALUES)
def test_critical_difference_is_that_of_the_paper(num_models: int, alpha: float) -> None:
    """The critical difference is the table's value times the root of k (k + 1) / 6 N."""
    scores = {str(model): model / 20 for model in range(num_models)}
    ranking = rank_models(made_up_datasets(scores, scores, scores), alpha=alpha)
    critical_value = ranking.critical_difference / math.sqrt(num_models * (num_models + 1) / (6 * 3))
    # the table has three decimals
    assert critical_value == pytest.approx(CRITICAL_VALUES[num_models, alpha], abs=5e-4)
    assert ranking.alpha == alpha


def test_ranking_of_the_published_benchmark() -> None:
    """Ranks, means and p-value of 13 models on 15 categories are those of the definitions, computed one by one."""
    categories = sorted(path.name for path in (PUBLISHED / "benchmark" / MODELS[0] / "mvtec").iterdir())
    results = {category: {model: published(model, category) for model in MODELS} for category in categories}
    ranking = rank_models(results)
    means = np.array([[results[category][model].mean for model in MODELS] for category in categories])
    ranks = (means[:, None] > means[:, :, None]).sum(2) + ((means[:, None] == means[:, :, None]).sum(2) + 1) / 2
    assert [[ranking.ranks[category][model] for model in MODELS] for category in categories] == ranks.tolist()
    assert [ranking.average_ranks[model] for model in MODELS] == pytest.approx(ranks.mean(0), abs=ROUNDING)
    assert [ranking.means[model] for model in MODELS] == pytest.approx(means.mean(0), abs=ROUNDING)
    assert [ranking.average_ranks[model] for model in ranking.order] == sorted(ranking.average_ranks.values())
    assert ranking.num_datasets == 15
    # Friedman's statistic from the average ranks (Demšar 2006, section 3.2.2); without ties it is exact
    friedman = 12 * 15 / (13 * 14) * (sum(rank**2 for rank in ranking.average_ranks.values()) - 13 * 14**2 / 4)
    assert ranking.p_value == pytest.approx(chi2.sf(friedman, 12), rel=1e-9)


def test_equal_means_share_their_ranks() -> None:
    """Models with one mean get the average of their ranks, and the one with the better mean over all stands first."""
    ranking = rank_models(made_up_datasets({"a": 0.5, "b": 0.5, "c": 0.1}, {"a": 0.2, "b": 0.6, "c": 0.4}))
    assert ranking.ranks == {"0": {"a": 1.5, "b": 1.5, "c": 3.0}, "1": {"a": 3.0, "b": 1.0, "c": 2.0}}
    assert ranking.order == ("b", "a", "c")
    swapped = rank_models(made_up_datasets({"a": 0.3, "b": 0.5}, {"a": 0.6, "b": 0.5}))
    assert swapped.average_ranks == {"a": 1.5, "b": 1.5}
    assert swapped.order == ("b", "a")


def test_groups_are_the_largest_that_cannot_be_told_apart() -> None:
    """A group holds all models within one critical difference, is in no other group, and has two models or more."""
    ranks = {"a": 1.0, "b": 1.5, "c": 2.2, "d": 3.0, "e": 5.0}
    ranking = rank_models(made_up_datasets({name: 1 - rank / 9 for name, rank in ranks.items()}))
    ranking = replace(ranking, average_ranks=ranks, critical_difference=1.4)
    assert ranking.groups == [("a", "b", "c"), ("c", "d")]
    assert replace(ranking, critical_difference=0.5).groups == []  # a difference of exactly this much is told apart
    assert replace(ranking, critical_difference=9.0).groups == [tuple(ranks)]


def test_friedman_test_needs_three_models_and_two_datasets() -> None:
    """With fewer there is no p-value, and where all models are alike it is 1."""
    two, three, equal = {"a": 0.1, "b": 0.2}, {"a": 0.1, "b": 0.2, "c": 0.3}, dict.fromkeys("abc", 0.5)
    assert math.isnan(rank_models(made_up_datasets(two, two, two)).p_value)
    assert math.isnan(rank_models(made_up_datasets(three)).p_value)
    assert rank_models(made_up_datasets(three, three)).p_value == pytest.approx(math.exp(-2))  # chi2 = 4, 2 degrees
    assert rank_models(made_up_datasets(equal, equal)).p_value == 1


def test_a_ranking_prints_as_a_table() -> None:
    """The table has a row a model, the best first, with mean, rank and the rows of those not told apart from it."""
    scores = {"a": 0.25, "b": 0.5, "c": 0.75}
    lines = str(rank_models(made_up_datasets(*[scores] * 5))).splitlines()
    assert lines[0].startswith("5 data sets; Friedman test: p = 0.0067; critical difference of ranks: 1.48")
    assert [line.split() for line in lines[2:]] == [
        ["#1", "c", "0.750", "1.00", "#1", "to", "#2"],
        ["#2", "b", "0.500", "2.00", "#1", "to", "#3"],
        ["#3", "a", "0.250", "3.00", "#2", "to", "#3"],
    ]
    apart = str(rank_models(made_up_datasets(*[{"a": 0.25, "b": 0.5}] * 9))).splitlines()
    assert "Friedman test: not defined" in apart[0]
    assert apart[2].split() == ["#1", "b", "0.500", "1.00", "-"]


A, B = make_result([0.1, 0.5]), make_result([0.2, 0.4])
BOUNDED, BY_MAX = make_result([0.1, 0.2], fpr_bounds=(1e-3, 1e-2)), make_result([0.1, 0.2], shared_fpr="max")
ALONE, UNDEFINED = make_result([0.1, math.nan]), make_result([math.nan])
BOTH, OF_OTHER_BOUNDS, OF_MAX = {"a": A, "b": B}, {"a": A, "b": BOUNDED}, {"a": A, "b": BY_MAX}
WRONG: dict[str, Any] = {
    "two models or more": lambda: compare_models({"a": A}),
    "same `fpr_bounds`": lambda: compare_models(OF_OTHER_BOUNDS),
    "same `shared_fpr`": lambda: compare_models(OF_MAX),
    "two images or more": lambda: compare_models({"a": ALONE, "b": ALONE}),
    "`test` to be": lambda: compare_models(BOTH, test="anova"),
    "`alternative` to be": lambda: compare_models(BOTH, alternative="better"),
    "`atol` to be": lambda: compare_models(BOTH, atol=-1),
    "`outliers` to be 'none' or": lambda: per_image_statistics(A, outliers="some"),
    "`tolerance` to be at least 0, but got -1": lambda: per_image_statistics(A, tolerance=-1),
    "`confidence` to be between 0 and 1, but got 95": lambda: bootstrap_interval(A, confidence=95),
    "`num_resamples` to be at least 1, but got 0": lambda: bootstrap_interval(A, num_resamples=0),
    "`alpha` to be between 0 and 1, but got 1": lambda: rank_models({"0": BOTH}, alpha=1),
    "`alpha` to be between 0 and 1, but got nan": lambda: rank_models({"0": BOTH}, alpha=math.nan),
    "same `shared_fpr`, but got 'mean' on '0' and 'max' for 'b' on '1'": lambda: rank_models({"0": BOTH, "1": OF_MAX}),
    r"same `fpr_bounds`, but got \(1e-05, 0.0001\) on 'x' and \(0.001, 0.01\) for 'b' on 'y'": lambda: rank_models(
        {"x": BOTH, "y": OF_OTHER_BOUNDS}
    ),
    "one data set or more, but got none": lambda: rank_models({}),
    "two models or more, but got 1": lambda: rank_models({"0": {"a": A}}),
    "'b' is missing on '1'": lambda: rank_models({"0": BOTH, "1": {"a": A}}),
    "mean of 'b' on '1' is undefined": lambda: rank_models({"0": BOTH, "1": {"a": A, "b": UNDEFINED}}),
}


@pytest.mark.parametrize("reason", WRONG)
def test_what_cannot_be_compared_is_named(reason: str) -> None:
    """A setting out of its range, and results of other images, models or bounds, are refused with the reason."""
    with pytest.raises(ValueError, match=reason):
        WRONG[reason]()


NOISE = 1e-13
"""More than any two programs differ by, and so little that sums of a few stay below 1e-12."""


@st.composite
def scores_and_noise(draw: Any) -> tuple[Scores, Scores]:
    """Scores (k, n) of k models, with ties and differences that floats do not hold exactly, and noise for them."""
    shape = draw(st.tuples(st.integers(2, 3), st.integers(2, 6)))
    scores = draw(arrays(np.float64, shape, elements=st.integers(0, 12))) / 12
    return scores, draw(arrays(np.float64, shape, elements=st.floats(-NOISE, NOISE)))


@given(scores_and_noise())
def test_noise_changes_no_rank_order_or_confidence(data: tuple[Scores, Scores]) -> None:
    """Models compare and rank as before if their scores change by less than 1e-13."""
    scores, noise = data
    plain, noisy = make_results(*scores), make_results(*scores + noise)
    for test in TESTS:
        expected, actual = compare_models(plain, test), compare_models(noisy, test)
        assert (actual.order, actual.average_ranks) == (expected.order, expected.average_ranks)
        # the t-test depends on the differences themselves
        exactness = 0 if test == "wilcoxon" else 1e-9
        assert actual.confidence == pytest.approx(expected.confidence, rel=0, abs=exactness)
    expected_ranking, ranking = (
        rank_models({str(index): make_results(*column) for index, column in enumerate(each.T)})
        for each in (scores, scores + noise)
    )
    assert (ranking.order, ranking.ranks) == (expected_ranking.order, expected_ranking.ranks)
    assert ranking.p_value == pytest.approx(expected_ranking.p_value, rel=0, abs=0, nan_ok=True)


@given(scores_and_noise())
def test_noise_changes_no_chosen_image(data: tuple[Scores, Scores]) -> None:
    """The same images stand for the same statistics, and the same are outliers, if scores change by less than 1e-13."""
    plain, noisy = (per_image_statistics(make_result(each.flatten()), outliers="both") for each in (data[0], sum(data)))
    assert [(each.name, each.image) for each in noisy] == [(each.name, each.image) for each in plain]
