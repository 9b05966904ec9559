"""Pixel metrics from ranks are those of their definitions, and a histogram bounds them with certainty."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import reference
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from aupimo_torchmetrics import _pixel_scoring
from aupimo_torchmetrics._engine import histogram, ranking
from aupimo_torchmetrics._engine.regions import join_masks, number_regions, pack_masks

EXACT = 1e-12
"""Sums of float64 in another order."""

NUM_NORMAL, NUM_MASK = 300, 80


def continuous(random: np.random.Generator, shift: float, size: int) -> NDArray[Any]:
    """Normally distributed scores around a shift."""
    return (random.standard_normal(size) + shift).astype(np.float32)


def with_infinities(random: np.random.Generator, shift: float, size: int) -> NDArray[Any]:
    """The same with some that are infinite."""
    scores = continuous(random, shift, size)
    scores[::9], scores[4::9] = math.inf, -math.inf
    return scores


KINDS = {
    "continuous": continuous,
    "tied": lambda *args: continuous(*args).round(1),
    "quantised": lambda *args: (continuous(*args) * 40 + 100).clip(0, 255).astype(np.uint8).astype(np.float32),
    "infinite": with_infinities,
    "all infinite": lambda random, _, size: random.choice([-math.inf, math.inf], size).astype(np.float32),
    "negative": lambda *args: continuous(*args) - 100,
    "huge": lambda *args: (continuous(*args) * 6e37).astype(np.float32),
    "tiny": lambda *args: (continuous(*args) * 1e-42).astype(np.float32),
    "offset": lambda *args: (continuous(*args) + 1e6).astype(np.float32),
    "outlier": lambda *args: np.concatenate([[1e30, -1e30], continuous(*args)[2:]]).astype(np.float32),
    "heavy tail": lambda *args: np.exp(4 * continuous(*args)),
    "constant": lambda _random, _shift, size: np.full(size, 0.5, dtype=np.float32),
    "zeros of either sign": lambda random, _, size: random.choice([-0.0, 0.0, 1.0], size).astype(np.float32),
    "float64": lambda random, shift, size: 1e9 + 1e-6 * (random.standard_normal(size) + shift),
}
each_kind = pytest.mark.parametrize("kind", KINDS)


def make_scores(kind: str, seed: int = 0) -> tuple[NDArray[Any], NDArray[Any]]:
    """Normal scores and mask scores of a kind; the latter are higher on average."""
    random = np.random.default_rng(seed)
    return KINDS[kind](random, 0.0, NUM_NORMAL), KINDS[kind](random, 1.0, NUM_MASK)


def in_parts(scores: NDArray[Any], size: int = 37) -> list[Tensor]:
    """Scores in parts of a size, and an empty one."""
    return [*torch.from_numpy(scores).split(size), torch.empty(0)]


def joined(normal: NDArray[Any], mask: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """All scores, and whether each is that of a mask pixel, as the reference takes them."""
    return np.concatenate([normal, mask]), np.arange(len(normal) + len(mask)) >= len(normal)


@pytest.fixture(params=["at once", "in chunks"])
def _chunks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rank few scores at once, and by bins and chunks as if they were many."""
    if request.param == "in chunks":
        monkeypatch.setattr(ranking, "_CHUNK_SIZE", 16)
        monkeypatch.setattr(ranking, "_MIN_SORTED", 20)
        monkeypatch.setattr(ranking, "_NUM_BINS", 64)


@pytest.mark.usefixtures("_chunks")
@each_kind
def test_counts_are_those_of_loops(kind: str) -> None:
    """Of each mask score it is known how many normal scores lie above it, and how many at or above it."""
    normal, mask = make_scores(kind)
    ranks = ranking.rank(in_parts(normal), in_parts(mask))
    distinct = sorted(set(mask.tolist()))
    assert ranks.scores.tolist() == distinct
    assert ranks.counts.tolist() == [np.count_nonzero(mask == score) for score in distinct]
    assert ranks.above.tolist() == [np.count_nonzero(normal > score) for score in distinct]
    assert ranks.at_least.tolist() == [np.count_nonzero(normal >= score) for score in distinct]
    assert ranks.found.tolist() == [np.count_nonzero(mask >= score) for score in distinct]
    assert ranks.num_normal == len(normal)


@pytest.mark.usefixtures("_chunks")
@each_kind
def test_metrics_are_those_of_their_definitions(kind: str) -> None:
    """AUROC, average precision and F1-max are those of slow loops, whatever the scores are."""
    normal, mask = make_scores(kind, seed=1)
    ranks = ranking.rank(in_parts(normal), in_parts(mask))
    scores, is_anomalous = joined(normal, mask)
    assert ranking.auroc(ranks) == pytest.approx(reference.auroc(scores, is_anomalous), abs=EXACT)
    expected = reference.average_precision(scores, is_anomalous)
    assert ranking.average_precision(ranks) == pytest.approx(expected, abs=EXACT)
    value, threshold = ranking.f1_max(ranks)
    best, lowest = reference.f1_max(scores, is_anomalous)
    assert (value, threshold) == (pytest.approx(best, abs=EXACT), lowest)


@each_kind
def test_metrics_are_those_of_scikit_learn(kind: str) -> None:
    """AUROC, average precision and F1-max are those of scikit-learn, of the ranks of the scores."""
    metrics = pytest.importorskip("sklearn.metrics")
    normal, mask = make_scores(kind, seed=2)
    scores, is_anomalous = joined(normal, mask)
    places = np.unique(scores, return_inverse=True)[1].astype(np.float64)  # it refuses infinite scores
    ranks = ranking.rank([torch.from_numpy(normal)], [torch.from_numpy(mask)])
    assert ranking.auroc(ranks) == pytest.approx(metrics.roc_auc_score(is_anomalous, places), abs=EXACT)
    expected = metrics.average_precision_score(is_anomalous, places)
    assert ranking.average_precision(ranks) == pytest.approx(expected, abs=EXACT)
    precision, recall, _ = metrics.precision_recall_curve(is_anomalous, places)
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-300)
    assert ranking.f1_max(ranks)[0] == pytest.approx(f1.max(), abs=EXACT)


def test_values_of_many_scores_are_those_of_sorting() -> None:
    """Ranks of so many scores that bins are used are those of sorting all of them."""
    random = np.random.default_rng(0)
    normal = np.exp(random.standard_normal(700_000, dtype=np.float32))
    mask = np.exp(random.standard_normal(30_000, dtype=np.float32) + 1)
    mask[:3] = math.inf, 1e30, -1.0
    ranks = ranking.rank([torch.from_numpy(normal[:600_000]), torch.from_numpy(normal[600_000:])], in_parts(mask, 9999))
    ordered, scores = np.sort(normal), ranks.scores.numpy()
    assert np.array_equal(ranks.above.numpy(), len(normal) - np.searchsorted(ordered, scores, side="right"))
    assert np.array_equal(ranks.at_least.numpy(), len(normal) - np.searchsorted(ordered, scores))


def test_scores_of_half_precision_are_ranked_as_they_are() -> None:
    """Parts of 16 bits, beside others, rank as the float32 numbers that they are."""
    normal, mask = (torch.from_numpy(each) for each in make_scores("continuous"))
    for dtype in (torch.float16, torch.bfloat16):
        parts = [normal[:100].to(dtype), normal[100:]], [mask[:40], mask[40:].to(dtype)]
        expected = ranking.rank(*([torch.cat([each.float() for each in part])] for part in parts))
        for actual, wanted in zip(ranking.rank(*parts), expected, strict=True):
            assert torch.equal(torch.as_tensor(actual), torch.as_tensor(wanted))


def test_perfect_and_useless_scores_are_exact() -> None:
    """All mask pixels above all normal ones score exactly 1; below them AUROC and AUPRO are exactly 0."""
    low, high = torch.rand(1000), 2 + torch.rand(77)
    best, worst = ranking.rank([low], [high]), ranking.rank([high], [low])
    assert ranking.auroc(best) == ranking.average_precision(best) == ranking.f1_max(best)[0] == 1
    assert ranking.area_shares(best, 0.3).unique().tolist() == [1]
    assert ranking.auroc(worst) == 0
    assert ranking.area_shares(worst, 0.3).unique().tolist() == [0]
    assert ranking.auroc(ranking.rank([torch.zeros(10)], [torch.zeros(3)])) == 0.5


def test_area_is_cut_at_the_limit_on_a_straight_line() -> None:
    """Where a tie of normal and mask pixels reaches across the limit, the curve is a straight line up to the limit."""
    # one of four normal pixels above, two tied with the mask pixel, one below: recall rises from FPR 1/4 to 3/4
    ranks = ranking.rank([torch.tensor([2.0, 1.0, 1.0, 0.0])], [torch.tensor([1.0])])
    for limit, area in ((0.25, 0.0), (0.5, 0.25 * 0.5 / 2), (0.75, 0.25), (1.0, 0.5)):
        assert ranking.area_shares(ranks, limit).item() == pytest.approx(area / limit, abs=EXACT)


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (13, 7), (64, 65)])
def test_packed_masks_keep_their_regions(size: tuple[int, int]) -> None:
    """The number of the region of each mask pixel is the same after masks were packed, in parts, and joined."""
    random = np.random.default_rng(size[1])
    masks = [random.random(size) < share for share in (0.0, 0.1, 0.5, 1.0, 0.02)]
    numbers = number_regions(join_masks([pack_masks(masks[:2]), pack_masks([]), pack_masks(masks[2:])]))
    expected, found = [], []
    for mask in masks:
        labels = np.zeros(size, dtype=np.int64)
        for number, region in enumerate(reference.regions(mask)):
            labels[tuple(np.array(list(region)).T)] = number + 1
        expected.append(labels[mask])
    for labels, part in zip(expected, numbers.split([len(each) for each in expected]), strict=True):
        found.append(len(part.unique()))
        assert len(part.unique()) == len(np.unique(labels))
        assert len({*zip(labels.tolist(), part.tolist(), strict=True)}) == len(np.unique(labels))
    assert sum(found) == len(numbers.unique())
    assert len(numbers) == 0 or numbers.amax() + 1 == sum(found)


each_num_bins = pytest.mark.parametrize("num_bins", [2, 16, 2**10, 2**18])
SPECIAL = [-math.inf, -3e38, -1.0, -1e-40, -0.0, 0.0, 1e-45, 0.5, 1.0, 1.0 + 2**-23, 255.0, 3.4e38, math.inf]


@pytest.mark.parametrize("num_bins", [2, 16, 2**18, 2**24])
def test_bins_are_in_the_order_of_the_scores(num_bins: int) -> None:
    """A higher score is never in a lower bin, the zeros are one, and the lower edge of a bin is its lowest score."""
    scores = torch.cat([torch.tensor(SPECIAL), torch.randn(1000), 1e6 + torch.randn(1000)]).sort().values
    bins = histogram.bins_of(scores, num_bins)
    assert bins.diff().amin() >= 0
    assert 0 <= bins.amin() <= bins.amax() < num_bins
    edges = histogram.lower_edges(bins.long(), num_bins)
    assert (edges <= scores).all()
    assert torch.equal(histogram.bins_of(edges, num_bins), bins)
    below = torch.nextafter(edges, torch.tensor(-math.inf))
    assert (histogram.bins_of(below, num_bins) < bins)[(edges > -math.inf) & (edges != 0)].all()
    assert len(histogram.bins_of(torch.tensor([-0.0, 0.0]), num_bins).unique()) == 1


def count_scores(scores: Tensor, num_bins: int) -> Tensor:
    """Histogram of scores."""
    counter = histogram.Counter(torch.zeros(num_bins, dtype=torch.int64))
    for part in scores.split(250_007):
        counter.add(part)
    return counter.counts


def test_bins_count_scores_of_any_dtype() -> None:
    """A histogram of many scores counts each in its bin, and of half precision as the float32 number that it is."""
    scores = torch.randn(600_001)
    bins = histogram.bins_of(scores, 2**10)
    assert torch.equal(count_scores(scores, 2**10), torch.bincount(bins, minlength=2**10))
    for dtype in (torch.float16, torch.bfloat16):
        rounded = scores[:1000].to(dtype)
        assert torch.equal(count_scores(rounded, 64), count_scores(rounded.float(), 64))
    assert count_scores(scores[:0], 64).sum() == 0


def rank_by_bins(normal: Tensor, mask: Tensor, num_bins: int) -> ranking.Ranks:
    """Ranks from histograms of scores."""
    return ranking.rank_bins(count_scores(normal, num_bins), count_scores(mask, num_bins))


def bounds_by_name(
    normal: Tensor, mask: Tensor, numbers: Tensor, num_bins: int | None
) -> dict[str, _pixel_scoring.PixelScore]:
    """All pixel metrics of scores, exactly or by bins."""
    if num_bins is None:
        ranks = ranking.rank([normal], [mask])
        region_mean = _pixel_scoring.pixel_means(ranks, mask, numbers)
    else:
        ranks = rank_by_bins(normal, mask, num_bins)
        shares = (1 / torch.bincount(numbers).double())[numbers]
        sums = histogram.sum_shares(mask, shares, num_bins)[count_scores(mask, num_bins) > 0]

        def region_mean(values: Tensor) -> float:
            return float((sums * values).sum() / (numbers.amax() + 1))

    is_binned = num_bins is not None
    return {
        "auroc": _pixel_scoring.score_auroc(ranks, is_binned=is_binned),
        "ap": _pixel_scoring.score_average_precision(ranks, is_binned=is_binned),
        "f1": _pixel_scoring.score_f1_max(ranks, is_binned=is_binned),
        **{
            f"aupro {limit}": _pixel_scoring.score_aupro(ranks, limit, region_mean, is_binned=is_binned)
            for limit in (0.05, 0.3, 1.0)
        },
    }


def assert_bounded(normal: Tensor, mask: Tensor, numbers: Tensor, num_bins: int) -> None:
    """Assert that the certain bounds hold the exact values and the estimates."""
    exact = bounds_by_name(normal, mask, numbers, None)
    for name, binned in bounds_by_name(normal, mask, numbers, num_bins).items():
        low, high = binned.bounds
        assert low - EXACT <= exact[name].value <= high + EXACT, name
        assert 0 <= low <= binned.value <= high <= 1 + EXACT, name
        low, high = _pixel_scoring.outward(binned.bounds)
        assert low <= exact[name].value <= high, name
        assert low <= np.float32(exact[name].value) <= high, name
        assert bool(binned.warnings) == (binned.bounds[1] - binned.bounds[0] > 1e-3)


scores_of_few_bits = st.one_of(
    st.floats(width=32, allow_nan=False),
    st.integers(-3, 3).map(float),
    st.sampled_from(SPECIAL),
    st.floats(1, 2, width=16),
)


@given(
    normal=st.lists(scores_of_few_bits, min_size=1, max_size=30),
    mask=st.lists(scores_of_few_bits, min_size=1, max_size=30),
    log_bins=st.integers(1, 16),
    seed=st.integers(0, 100),
)
def test_bounds_are_certain(normal: list[float], mask: list[float], log_bins: int, seed: int) -> None:
    """The exact value lies between the bounds, whatever the scores and the number of bins are."""
    numbers = torch.randint(0, 3, (len(mask),), generator=torch.Generator().manual_seed(seed))
    numbers = numbers.unique(return_inverse=True)[1]
    scores = (torch.tensor(each, dtype=torch.float32) for each in (normal, mask))
    assert_bounded(*scores, numbers, 2**log_bins)


@each_num_bins
@each_kind
def test_bounds_of_many_scores_are_certain(kind: str, num_bins: int) -> None:
    """The exact value lies between the bounds, for each kind of scores, also where all lie in one bin."""
    if kind == "float64":
        pytest.skip("metrics round it to float32")
    for seed in range(3):
        normal, mask = (torch.from_numpy(each) for each in make_scores(kind, seed))
        assert_bounded(normal, mask, torch.arange(NUM_MASK) // 7, num_bins)


def test_bounds_are_tight_where_bins_hold_one_score_each() -> None:
    """Scores that all lie in bins of their own are known exactly: the bounds are one number."""
    order = torch.randperm(200, generator=torch.Generator().manual_seed(0)).float() + 1
    for name, score in bounds_by_name(order[:150], order[150:], torch.arange(50) // 7, 2**18).items():
        assert score.bounds[1] - score.bounds[0] == pytest.approx(0, abs=EXACT), name


def test_bounds_are_reached() -> None:
    """If all scores lie in one bin, scores can be found at either bound, so no narrower bounds would be certain."""
    low, high = 1 + torch.rand(40) / 100, 1.02 + torch.rand(25) / 100
    numbers = torch.zeros(25, dtype=torch.int64)
    best = bounds_by_name(low, torch.full((25,), 1.02), numbers, None)
    worst = bounds_by_name(low + 0.1, high, numbers, None)
    for name, score in bounds_by_name(low, high, numbers, 16).items():
        assert score.bounds[1] == best[name].value == 1
        # the least sum of precisions is bounded by a logarithm, which is exact to the third decimal here
        assert score.bounds[0] == pytest.approx(worst[name].value, abs=1e-3 if name == "ap" else EXACT), name


def test_the_lowest_of_equally_good_thresholds_is_given() -> None:
    """Where two thresholds reach the highest F1, the threshold is the lower one."""
    # at 3 one of two mask pixels is found without an error, at 1 both with two errors: F1 is 2/3 either way
    ranks = ranking.rank([torch.tensor([2.0, 2.0, 0.0])], [torch.tensor([3.0, 1.0])])
    assert ranking.f1_max(ranks) == (pytest.approx(2 / 3, abs=EXACT), 1.0)
