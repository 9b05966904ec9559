"""AUPRO, pixel AUROC, average precision and F1-max as metrics: they agree with functions and references, and behave."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import reference
import torch
from helpers import (
    BATCHES,
    FUNCTIONS,
    Batch,
    assert_same,
    ignoring_uncertainty,
    join,
    make_batch,
    make_ragged,
    states_of,
    updated,
)
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torchmetrics import MetricCollection

from aupimo_torchmetrics import AUPIMO, AUPRO, PixelAUROC, PixelF1Max, functional

NUM_BINS = 2**18

FOUR = [*FUNCTIONS][:4]
"""The metrics of pixels."""
each_metric = pytest.mark.parametrize("metric_class", FOUR)
each_num_bins = pytest.mark.parametrize("num_bins", [None, NUM_BINS])


def make_four(**settings: Any) -> MetricCollection:
    """All four in a collection."""
    return MetricCollection({each.__name__: each(**settings) for each in FOUR})


def expected_four(batches: list[Batch]) -> dict[str, Tensor]:
    """What the functions answer for all batches together."""
    preds, target = join(batches)
    return {each.__name__: FUNCTIONS[each](preds, target) for each in FOUR}


@each_metric
@each_num_bins
@ignoring_uncertainty
def test_undefined_values_are_nan(metric_class: type[Any], num_bins: int | None) -> None:
    """Without a mask pixel or without a normal one the value is NaN, and one warning begins with the metric's name."""
    maps = torch.rand(2, 4, 4)
    for target in (torch.zeros(2, 4, 4), torch.ones(2, 4, 4), torch.zeros(0, 4, 4)):
        metric = updated(metric_class(num_bins=num_bins), [(maps[: len(target)], target)])
        with pytest.warns(UserWarning, match=rf"^{metric_class.__name__} is undefined \(NaN\): there is no") as caught:
            assert metric.compute().isnan()
        assert len(caught) == 1
        assert all(bound.isnan() for bound in metric.bounds())
        with pytest.warns(UserWarning, match=f"^{metric_class.__name__} is undefined") as caught:
            assert FUNCTIONS[metric_class](maps[: len(target)], target).isnan()
        assert len(caught) == 1
    metric.update(*BATCHES[0])  # it goes on
    assert not metric.compute().isnan()


@each_metric
@ignoring_uncertainty
def test_settings_are_checked(metric_class: type[Any]) -> None:
    """A wrong setting raises an error that names it; valid ones are kept."""
    for wrong in (1, 1000, 2**25, -4):
        with pytest.raises(ValueError, match=r"`num_bins` to be None or a power of two from 2 to 2\*\*24, but got"):
            metric_class(num_bins=wrong)
    for wrong in (2.0, True):
        with pytest.raises(TypeError, match="`num_bins` to be None or an integer"):
            metric_class(num_bins=wrong)
    with pytest.raises(ValueError, match="Unexpected keyword arguments"):
        metric_class(bins=16)
    assert metric_class(num_bins=np.int64(16)).num_bins == 16
    unchecked = metric_class(validate_args=False)
    unchecked.update(*BATCHES[0])
    assert_same(unchecked.compute(), FUNCTIONS[metric_class](*BATCHES[0], validate_args=False))


class Sorting(TorchDispatchMode):
    """Counts how often torch is asked for the distinct ones of sorted scores."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation, and count it if it is that."""
        self.count += func.overloadpacket.__name__ == "unique_consecutive"
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("by_hand", [False, True])
def test_four_keep_their_states_once_and_rank_once(by_hand: bool) -> None:
    """Together they are one compute group with the same tensors, and one of them ranks for all, after each change."""
    collection = MetricCollection([each() for each in FOUR], compute_groups=True)
    for i in range(len(BATCHES)):
        collection.update(*BATCHES[i])
        members = dict(collection.items(copy_state=False))
        with Sorting() as sorting:
            values = {name: m.compute() for name, m in members.items()} if by_hand else collection.compute()
        assert sorting.count == 1
        assert_same(values, expected_four(BATCHES[: i + 1]))
    assert [sorted(each) for each in collection.compute_groups.values()] == [sorted(c.__name__ for c in FOUR)]
    first, *others = members.values()
    assert all(member.metric_state[name] is state for member in others for name, state in first.metric_state.items())


def test_values_of_a_group_follow_its_states() -> None:
    """After reset, merge, load, and in a second group with other data of the same size, no rank is a stale one."""
    one, other = (updated(make_four(), [batch]) for batch in BATCHES[:2])
    for _ in range(2):
        assert_same(one.compute(), expected_four(BATCHES[:1]))
        assert_same(other.compute(), expected_four(BATCHES[1:2]))
    member = one["PixelAUROC"]
    member.merge_state(other["PixelAUROC"])
    assert_same(member.compute(), expected_four(BATCHES[1::-1])["PixelAUROC"])
    one.reset()
    updated(one, BATCHES[1:])
    assert_same(one.compute(), expected_four(BATCHES[1:]))
    clone = one.clone(prefix="val/")
    one.reset()
    assert_same(clone.compute(), {f"val/{name}": value for name, value in expected_four(BATCHES[1:]).items()})


def test_threads_share_no_ranks() -> None:
    """Metrics that other threads compute at the same time change no value."""
    expected = [expected_four([batch]) for batch in BATCHES]

    def compute(i: int) -> None:
        four = updated(make_four(), [BATCHES[i % 3]])
        for _ in range(5):
            assert_same({name: metric.compute() for name, metric in four.items()}, expected[i % 3])
            four.update(*make_batch("", 0))  # so that the next value is computed anew

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(compute, range(8)))


@each_num_bins
@ignoring_uncertainty
def test_limits_of_aupro_share_states(num_bins: int | None) -> None:
    """Each limit has its own value, that of the function, of the same states."""
    limits = {"low": 0.05, "usual": 0.3, "all": 1}
    collection = MetricCollection({name: AUPRO(limit, num_bins=num_bins) for name, limit in limits.items()})
    updated(collection, BATCHES)
    assert len(collection.compute_groups) == 1
    expected = {name: functional.aupro(*join(BATCHES), limit) for name, limit in limits.items()}
    assert_same(dict(collection.compute()), expected, atol=0.0 if num_bins is None else 1e-3)


@pytest.mark.filterwarnings("ignore:AUPIMO is")
@ignoring_uncertainty
def test_histograms_of_three_are_one_apart_from_what_keeps_other_scores() -> None:
    """As histograms, AUROC, AP and F1-max are one group; AUPRO adds up regions and is another; all are right."""
    others = {"exact": PixelAUROC(), "few": PixelAUROC(num_bins=64), "marked": PixelAUROC(ignore_index=255)}
    collection = make_four(num_bins=NUM_BINS)
    collection.add_metrics({**others, "score": AUPIMO()})
    updated(collection, BATCHES)
    groups = sorted(sorted(each) for each in collection.compute_groups.values())
    three = ["PixelAUROC", "PixelAveragePrecision", "PixelF1Max"]
    assert groups == [["AUPRO"], three, *[[name] for name in (*others, "score")]]
    for name, exact in expected_four(BATCHES).items():
        low, high = collection[name].bounds()
        assert low <= exact <= high
        assert low <= collection[name].compute() <= high
    leaders = [collection[each[0]] for each in groups[:2]]
    assert sum(state.nbytes for metric in leaders for state in metric.metric_state.values()) < 16e6


@each_metric
@each_num_bins
@ignoring_uncertainty
def test_batches_split_and_order_do_not_matter(metric_class: type[Any], num_bins: int | None) -> None:
    """Many updates of single images of different sizes, in any order, give what one update of all gives."""
    maps, masks = make_ragged("NANANAAN" * 2, 3)
    expected = updated(metric_class(num_bins=num_bins), [(maps, masks)]).compute()
    batches = [([maps[i]], [masks[i]]) for i in torch.randperm(len(maps)).tolist()]
    metric = updated(metric_class(num_bins=num_bins), batches)
    assert_same(metric.compute(), expected, atol=1e-7)  # order of summation
    assert all(len(parts) < 9 for parts in states_of(metric).values())
    if num_bins is None:
        assert_same(expected, FUNCTIONS[metric_class](maps, masks))


@pytest.mark.parametrize(("dtype", "bytes_of_a_pixel"), [(torch.float32, 4), (torch.float16, 2), (torch.bfloat16, 2)])
def test_each_score_is_kept_once(dtype: torch.dtype, bytes_of_a_pixel: int) -> None:
    """The exact states are the scores in their precision, and a bit for each pixel near a mask."""
    preds, target = join([make_batch("NNA" * 20, 0)])
    metric = updated(PixelAUROC(), [(preds.to(dtype), target)] * 3)
    kept = sum(part.nbytes for parts in states_of(metric).values() for part in parts)
    assert 3 * bytes_of_a_pixel * preds.numel() <= kept <= 3 * (bytes_of_a_pixel + 0.02) * preds.numel()
    metric.compute()
    assert sum(part.nbytes for parts in states_of(metric).values() for part in parts) == kept


@ignoring_uncertainty
def test_threshold_reaches_the_highest_f1() -> None:
    """The lowest threshold with the highest F1 is in the result, exactly and by bins, and outlives the data."""
    preds, target = join(BATCHES)
    for num_bins in (None, NUM_BINS):
        metric = PixelF1Max(num_bins=num_bins)
        for maps, masks in BATCHES:
            metric(maps, masks)  # the value of a batch, which is not the threshold of all
        value, result = metric.compute(), metric.result()
        found = preds >= result.threshold
        f1 = 2 * (found & target).sum() / (found.sum() + target.sum())
        assert_same(f1, value, atol=1e-7)
        metric.reset()
        assert result.value == pytest.approx(float(value))
        metric.update(preds, target & False)
        with pytest.warns(UserWarning, match="PixelF1Max is undefined"):
            assert math.isnan(metric.result().threshold)
    expected = reference.f1_max(preds.numpy().ravel(), target.numpy().ravel())
    for maps, masks in ((preds, target), (preds.double(), target), (preds.numpy(), target.numpy())):
        value, threshold = functional.pixel_f1_max(maps, masks, return_threshold=True)
        assert (value, threshold) == (pytest.approx(expected[0]), np.float32(expected[1]))


@each_metric
def test_bounds_tell_how_certain_a_histogram_is(metric_class: type[Any]) -> None:
    """A wide interval causes one warning with both ends; without bins both bounds are the value."""
    exact = updated(metric_class(), BATCHES)
    assert_same(exact.bounds(), (exact.compute(), exact.compute()))
    shifted = [(preds + 1e5, target) for preds, target in BATCHES]
    crowded = updated(metric_class(num_bins=NUM_BINS), shifted)
    with pytest.warns(UserWarning, match=rf"^{metric_class.__name__} is uncertain.*`num_bins=None`") as caught:
        value = crowded.compute()
    assert len(caught) == 1
    low, high = crowded.bounds()
    assert f"{float(low):.4f}" in str(caught[0].message)
    assert low < value <= high or low <= value < high
    assert low <= updated(metric_class(), shifted).compute() <= high
