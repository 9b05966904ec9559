"""What `normal_buffer` does: few scores are kept, and scores are exact, or lower bounds with a warning."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import FPR_BOUNDS, assert_same, by_function, caught_texts, join, make_aupimo, make_batch, updated

from aupimo_torchmetrics import AUPIMO, AUPIMOResult

STREAM = [(torch.full((1, *preds.shape[1:]), 5.0) + preds[:1], target[:1]) for preds, target in [make_batch("N", 50)]]
STREAM += [make_batch("N", 51 + i) for i in range(24)]
DEFECTS = make_batch("AAA", 80)


@pytest.mark.parametrize(("normal_buffer", "images_per_batch"), [(1, 5), (16, 1), (100, 5), (1000, 1)])
@pytest.mark.parametrize("false_alarms_at", [0, 24])
@pytest.mark.parametrize("shared_fpr", ["mean", "max"])
def test_buffer_is_exact_or_says_so(
    normal_buffer: int, false_alarms_at: int, images_per_batch: int, shared_fpr: str
) -> None:
    """Wherever an image full of false alarms comes, scores are exact, or lower bounds with a warning."""
    order = STREAM[1 : 1 + false_alarms_at] + STREAM[:1] + STREAM[1 + false_alarms_at :]
    # bounds at which the scores of the image of false alarms decide, and bounds at which those below it decide
    for fpr_bounds in ((1e-3, 0.03), (0.03, 0.06)):
        metric = AUPIMO(fpr_bounds=fpr_bounds, shared_fpr=shared_fpr, normal_buffer=normal_buffer)
        for start in range(0, len(order), images_per_batch):
            metric.update(*join(order[start : start + images_per_batch]))
        metric.update(*DEFECTS)
        exact = AUPIMO(fpr_bounds=fpr_bounds, reduction="none", shared_fpr=shared_fpr, normal_buffer=None)
        expected = updated(exact, [*order, DEFECTS]).compute()[-3:].double()
        with caught_texts() as texts:
            scores = metric.result().aupimos[-3:]
        # the exact scores are rounded to float32, and sums are in another order
        if texts:
            assert ["AUPIMO is a lower bound" in text for text in texts] == [True]
            assert (scores <= expected + 1e-7).all()
        else:
            assert_same(scores, expected, atol=1e-7)


def worst_order() -> list[Any]:
    """Return batches: the first holds all the highest normal scores, in 2 of 250 normal images; the last has defects.

    A small buffer keeps the highest scores of the first batch, and none of the other normal images.
    """
    high_preds, high_target = make_batch("NN", 1)
    preds, target = make_batch("AAA", 3)
    preds = torch.stack([preds[0] + 10, preds[1] + 20, preds[2] + 10 * (preds[2] > 2)])  # 10: above all but the first
    return [(high_preds + 20, high_target), *[make_batch("NN", 2)] * 124, (preds, target)]


def with_a_floor(floor_by: str, **settings: Any) -> AUPIMO:
    """Return a metric that has seen the worst order of the data and chosen a floor in one of three ways."""
    images = worst_order()
    if floor_by == "first batch":
        return updated(make_aupimo(normal_buffer=1, **settings), images)
    if floor_by == "pruning":
        one_by_one = [(maps[None], masks[None]) for batch in images for maps, masks in zip(*batch, strict=True)]
        # half an image, so that a first image is kept whole
        return updated(make_aupimo(normal_buffer=500, **settings), one_by_one)
    metric = updated(make_aupimo(normal_buffer=1, **settings), images[:1])
    metric.merge_state(updated(make_aupimo(normal_buffer=1, **settings), [join(images[1:])]))
    return metric


@pytest.mark.parametrize(
    ("floor_by", "num_thresholds"),
    [("first batch", None), ("first batch", 20_000), ("pruning", 20_000), ("merge", None)],
)
def test_the_worst_order_gives_a_lower_bound_and_an_exact_maximum(floor_by: str, num_thresholds: int | None) -> None:
    """The worst order of the data does lose scores, none is overstated, and the warning says by how much at most.

    Images that follow never lower the largest FPR, so the smallest buffer loses nothing of the maximum.
    """
    for shared_fpr in ("mean", "max"):
        settings: dict[str, Any] = {"num_thresholds": num_thresholds, "shared_fpr": shared_fpr}
        metric = with_a_floor(floor_by, **settings)
        assert metric.aupimo_floor > -torch.inf
        exact = updated(make_aupimo(normal_buffer=None, **settings), worst_order()).result()
        expected = exact.aupimos[-3:]
        if shared_fpr == "max":
            result = metric.result()
            assert_same(result.aupimos[~result.aupimos.isnan()], expected)
            assert result.threshold_bounds == exact.threshold_bounds
            assert (expected < 0.99).any()
            continue
        with pytest.warns(UserWarning, match="AUPIMO is a lower bound.*A score may be up to") as caught:
            scores = metric.result().aupimos
        scores = scores[~scores.isnan()]
        missing = float(str(caught[0].message).split("may be up to ")[1].split(" ")[0])
        assert (scores <= expected).all()
        assert (scores < expected - 0.01).any()
        # the number in the warning has three digits
        assert (expected - scores <= missing * 1.005).all()


@pytest.mark.parametrize("seed", range(3))
def test_large_buffer_is_exact_in_any_order(seed: int) -> None:
    """A buffer of the top `U * P` scores is enough, wherever in the stream these lie."""
    images = [(preds + 0.3 * i, target) for i, (preds, target) in enumerate(STREAM)]
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed)).tolist()
    if seed == 0:
        order.sort(reverse=True)  # the highest scores first
    num_top_scores = int(FPR_BOUNDS[1] * len(images) * images[0][0].numel())
    metric = make_aupimo(normal_buffer=num_top_scores + 1)
    updated(metric, [*[images[i] for i in order], DEFECTS])
    assert_same(metric.compute(), by_function(metric, *join([*images, DEFECTS])), atol=1e-7)  # order of summation


def test_state_stays_small() -> None:
    """While normal images stream in, the kept normal scores stay below a few times the buffer."""
    metric = AUPIMO(fpr_bounds=(1e-5, 1e-4), normal_buffer=200)
    for seed in range(60):
        metric.update(*make_batch("N", seed))
        # at most what the last pruning left, as much again twice before the next, and what one image may add
        assert sum(map(len, metric.aupimo_normal_scores)) <= 4 * 200
    assert len(torch.cat(metric.aupimo_num_pixels)) == 60


@pytest.mark.parametrize("high_ones", ["at random", "where the sample looks", "where it does not look", "all equal"])
def test_a_pruning_keeps_enough(high_ones: str) -> None:
    """A pruning of many scores keeps as many as `normal_buffer` says, and few more where a sample of them is fair."""
    normal_buffer, size = 2**15, (120, 100)  # the seventh image brings a pruning, whose sample is every tenth score
    maps = torch.rand(7, *size, generator=torch.Generator().manual_seed(0))
    if "look" in high_ones:
        maps.view(-1)[0 if high_ones == "where the sample looks" else 1 :: 2] += 1
    if high_ones == "all equal":
        maps.zero_()
    metric = AUPIMO(fpr_bounds=(1e-4, 1e-3), normal_buffer=normal_buffer)
    for each in maps:
        metric.update(each[None], torch.zeros(1, *size, dtype=torch.bool))
    kept = torch.cat(metric.metric_state["aupimo_normal_scores"])
    assert torch.equal(kept.sort().values, maps.view(-1).sort().values[-len(kept) :])
    assert len(kept) >= normal_buffer
    if high_ones == "at random":
        assert len(kept) < 1.1 * normal_buffer  # the sample of 2**13 scores is allowed to be four deviations off


@pytest.mark.parametrize("decimals", [9, 1])  # with one, mask scores lie on the floor
def test_mask_scores_below_the_floor_are_counted_and_not_kept(decimals: int) -> None:
    """What cannot add to a score any more is dropped in `update` and in pruning; scores and mask sizes stay."""
    stream = [make_batch("NANN", seed) for seed in range(20)]
    stream = [(preds.round(decimals=decimals), target) for preds, target in stream]
    small, all_kept = (updated(AUPIMO(fpr_bounds=(1e-4, 1e-3), normal_buffer=each), stream) for each in (16, None))
    num_small, num_all = (sum(len(part) for part in each.aupimo_mask_scores) for each in (small, all_kept))
    assert num_small < 0.8 * num_all
    assert num_all == sum(int(masks.sum()) for _, masks in stream)
    result, expected = small.result(), all_kept.result()
    assert_same(result.aupimos, expected.aupimos, atol=1e-12)  # order of summation
    assert_same(result.mask_sizes, expected.mask_sizes)
    floor = float(small.aupimo_floor)
    for threshold in (floor, result.threshold_bounds[0]):
        point, true = (each.operating_point(threshold=threshold) for each in (result, expected))
        assert_same(point.per_image_tprs, true.per_image_tprs)
        assert point.shared_fpr == true.shared_fpr


@pytest.mark.parametrize("normal_buffer", [16, 2**16, None])
def test_many_updates_leave_few_parts(normal_buffer: int | None) -> None:
    """However many updates there are, an update walks a list of a few hundred parts at most."""
    metric = make_aupimo(reduction="none", normal_buffer=normal_buffer)
    batches = [make_batch("N" if seed % 5 else "A", seed, (12, 9)) for seed in range(60)]
    for index in range(600):
        metric.update(*batches[index % 60], image_ids=[index % 60])
        assert len(metric.aupimo_num_kept) <= 257
    maps, masks = (list(each) for each in zip(*((maps[0], masks[0]) for maps, masks in batches), strict=True))
    assert_same(metric.compute(), by_function(metric, maps, masks), atol=1e-7)  # order of summation


def test_a_score_that_is_nan_has_its_reason() -> None:
    """Where a small buffer holds only scores of an image that does not count, the score is NaN, and a text says why."""
    preds, target = make_batch("NNA", 0)
    metric = make_aupimo(normal_buffer=1)
    metric.update(preds[:1], target[:1], image_ids=[0])
    metric.update(preds[2:], target[2:], image_ids=[2])
    metric.update((preds[1:2] + 100).repeat(1, 4, 1), target[1:2].repeat(1, 4, 1), image_ids=[0])  # another image
    with pytest.warns(UserWarning, match="AUPIMO") as caught:
        assert metric.compute().isnan()
    texts = tuple(str(each.message) for each in caught)
    assert "undefined (NaN): all normal scores that were kept are of images whose id was seen" in " ".join(texts)
    assert metric.result().warnings == texts


@pytest.mark.parametrize(("num_thresholds", "shared_fpr"), [(None, "mean"), (20_000, "mean"), (None, "max")])
def test_an_unknown_threshold_is_nan_everywhere(num_thresholds: Any, shared_fpr: str, tmp_path: Path) -> None:
    """Thresholds are those of all scores, or NaN with a reason, in a result, its table and its files."""
    settings = {"num_thresholds": num_thresholds, "shared_fpr": shared_fpr}
    exact = updated(make_aupimo(normal_buffer=None, **settings), worst_order()).result()
    with caught_texts():
        result = with_a_floor("first batch", **settings).result()
    result.save(tmp_path / "aupimos.json")
    for each in (result, AUPIMOResult.load(tmp_path / "aupimos.json")):
        is_known = not math.isnan(each.threshold_bounds[0])
        assert is_known == (shared_fpr == "max")
        assert is_known or (each.warnings and each.to_dataframe()["tpr_at_upper"].isna().all())
        point = each.operating_point(fpr=FPR_BOUNDS[1])
        assert math.isnan(point.threshold) == math.isnan(point.shared_fpr) == (not is_known)
        for fpr in (1e-5, 1e-3, 5e-3, 1e-2):
            assert math.isnan(each.threshold_at(fpr)) or each.threshold_at(fpr) == exact.threshold_at(fpr)
