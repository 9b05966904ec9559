"""Pixels with the value `ignore_index` count nowhere: every result is that of the same images without these pixels.

The reference takes the ignored pixels out by hand. What remains of an image is a map of one row, for scores do not
depend on where pixels lie. The ignored pixels hold the highest and the lowest scores, so that one that counts shows.
"""

from __future__ import annotations

import copy
import math
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from helpers import (
    AS_TWO,
    MAX_ERROR,
    METRICS,
    RANKED,
    Batch,
    assert_same,
    by_function,
    caught_texts,
    ignoring_uncertainty,
    make_batch,
    make_ragged,
    updated,
)
from torch import Tensor

from aupimo_torchmetrics import AUPIMO
from aupimo_torchmetrics.functional import aupimo, aupro, pimo

IGNORED = 255
WIDE_BOUNDS = (2e-3, 1e-2)
"""Bounds that one normal image of 1000 pixels resolves even if a third of its pixels is ignored."""

make_metric = partial(AUPIMO, fpr_bounds=WIDE_BOUNDS, reduction="none", ignore_index=IGNORED)
ignore_few_pixels = pytest.mark.filterwarnings("ignore:AUPIMO is uncertain", "ignore:AUPIMO may be inaccurate")


def with_ignored(batch: Batch, seed: int, value: float = IGNORED, dtype: torch.dtype = torch.int64) -> Any:
    """The batch with about a third of its pixels ignored, whose scores are extreme: maps and targets in its form."""
    if isinstance(batch[0], list):
        pairs = [with_ignored((a[None], b[None]), seed + i, value, dtype) for i, (a, b) in enumerate(zip(*batch))]  # noqa: B905
        return [maps[0] for maps, _ in pairs], [target[0] for _, target in pairs]
    maps, masks = batch
    random = torch.Generator().manual_seed(seed)
    ignored = torch.rand(masks.shape, generator=random) < 0.3
    ignored[:, :2] = True
    extreme = torch.where(torch.rand(masks.shape, generator=random) < 0.5, 1000.0, -1000.0)
    return maps.where(~ignored, extreme), masks.to(dtype).masked_fill(ignored, value)


def without_ignored(batch: Batch, value: float = IGNORED) -> tuple[list[Tensor], list[Tensor]]:
    """What remains of the images as lists of maps and masks (1, P), without the images of which nothing does."""
    maps, masks = [], []
    for anomaly_map, target in zip(*batch, strict=True):
        counts = target != value
        if counts.any():
            maps.append(anomaly_map[counts][None])
            masks.append(target[counts][None] == 1)
    return maps, masks


BATCHES = [with_ignored(make_batch(classes, seed), seed) for seed, classes in enumerate(["NANA", "NNAA", "AN"])]
RAGGED = [with_ignored(make_ragged(classes, seed), seed) for seed, classes in enumerate(["NANA", "NNA"])]


def expected_of(metric: Any, batches: list[Any] = BATCHES) -> Any:
    """What the function without `ignore_index` says of the pixels that remain."""
    parts = [without_ignored(batch) for batch in batches]
    return by_function(metric, [m for maps, _ in parts for m in maps], [k for _, masks in parts for k in masks])


@pytest.mark.parametrize("kind", [kind for kind in METRICS if "AUPRO" not in kind])  # of which regions would change
@ignore_few_pixels
@ignoring_uncertainty
def test_scores_are_those_of_the_other_pixels(kind: str) -> None:
    """Whatever the metric, its settings and the sizes of images, it answers as if ignored pixels were not there."""
    for batches in (BATCHES, RAGGED):
        metric = updated(METRICS[kind](ignore_index=IGNORED), batches)
        assert_same(metric.compute(), expected_of(metric, batches), atol=MAX_ERROR)


@pytest.mark.parametrize("kind", RANKED)
@ignoring_uncertainty
def test_ranked_metrics_skip_an_image_without_any_other_pixel(kind: str) -> None:
    """One warning says how many and why, and the value stays; rows of ignored pixels count in no region."""
    (maps, target), metric = BATCHES[0], RANKED[kind](ignore_index=IGNORED)
    marked = (target == 1).long().index_fill(1, torch.arange(5), IGNORED)
    metric.update(maps, marked)
    expected = by_function(metric, maps[:, 5:], target[:, 5:] == 1)
    assert_same(metric.compute(), expected)
    with pytest.warns(UserWarning, match=f"^{type(metric).__name__} does not count every image. 1 of the images"):
        metric.update(maps[:1], torch.full_like(target[:1], IGNORED))
    assert_same(metric.compute(), expected)


VALUES = [
    *((255, torch.uint8), (2, torch.uint8), (-1, torch.int8), (-100, torch.int64), (2**62, torch.int64)),
    *((255, torch.float32), (-1, torch.float64), (255, torch.float16), (255, torch.bfloat16)),
]


@pytest.mark.parametrize("of_maps", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize(("value", "dtype"), VALUES, ids=str)
@ignore_few_pixels
def test_values_and_dtypes(value: int, dtype: torch.dtype, of_maps: torch.dtype) -> None:
    """Any integer but 0 and 1 may be ignored, in targets of any dtype that holds it, of maps in any precision."""
    maps, target = with_ignored(make_batch("NANA", 0), 0, value, dtype)
    batch = maps.to(of_maps), target
    for normal_buffer, as_list in ((16, of_maps.itemsize == 2), (None, of_maps.itemsize > 2)):
        metric = make_metric(ignore_index=np.int64(value), normal_buffer=normal_buffer)
        metric.update(*map(list, batch)) if as_list else metric.update(*batch)
        expected = by_function(metric, *without_ignored(batch, value)).float()
        assert_same(metric.compute(), expected, atol=MAX_ERROR)
    if dtype is torch.uint8:  # masks that are bool, or hold no such value, are scored as without the setting
        for masks in (target == 1, (target == 1).to(dtype)):
            metric.reset()
            metric.update(batch[0], masks)
            assert_same(metric.compute(), by_function(metric, batch[0], masks).float())


@ignore_few_pixels
def test_infinite_scores_may_be_ignored() -> None:
    """Infinite ignored scores do not stretch the sampled thresholds, and none is kept."""
    maps, target = BATCHES[0]
    infinite = torch.where((target == IGNORED) & (maps < 0), -math.inf, maps).masked_fill(maps > 999, math.inf)
    metric = make_metric(20_000)
    metric.update(infinite, target)
    assert_same(metric.compute(), expected_of(metric, BATCHES[:1]))
    assert metric.result().threshold_bounds[1] < 100
    assert float(metric.aupimo_normal_min) == float(torch.cat(without_ignored(BATCHES[0])[0][::2], 1).min())


@pytest.mark.parametrize(
    ("size", "batch_size", "upper", "share", "normal_buffer"),
    [((25, 40), 8, 1e-2, 0.5, 64), ((128, 128), 32, 1e-3, 0.05, 1)],
)
def test_few_scores_are_kept(
    size: tuple[int, int], batch_size: int, upper: float, share: float, normal_buffer: int
) -> None:
    """High scores in ignored pixels raise no floor and take no place, in small batches and in a first, large one."""
    maps, target = with_ignored(make_batch("N" * 30 + "AA", 5, size), 5)
    metric = make_metric(fpr_bounds=(upper / 5, upper), normal_buffer=normal_buffer)
    for start in range(0, 32, batch_size):
        metric.update(maps[start : start + batch_size], target[start : start + batch_size])
    assert_same(metric.compute(), expected_of(metric, [(maps, target)]), atol=MAX_ERROR)
    assert metric.result().warnings == ()
    assert sum(len(part) for part in metric.aupimo_normal_scores) < share * maps[:30].numel()


def test_a_mask_of_which_every_pixel_is_ignored_is_no_mask() -> None:
    """Such an image is normal; the sizes of masks count what remains, and so do the pixels of normal images."""
    maps, masks = make_batch("NAA", 0)
    target = masks.long()
    target[1][masks[1]] = IGNORED
    target[2, :12] = IGNORED
    target[0, 0] = IGNORED
    metric = make_metric()
    metric.update(maps, target)
    result = metric.result()
    assert result.image_classes.tolist() == [0, 0, 1]
    assert result.mask_sizes.tolist() == [0, 0, int((target[2] == 1).sum())]
    assert torch.cat(metric.aupimo_num_pixels).tolist()[:2] == [1000 - 40, 1000 - 64]
    assert_same(metric.compute(), by_function(metric, *without_ignored((maps, target))))


@pytest.mark.parametrize("several", [{}, AS_TWO], ids=["one process", "as two"])
@pytest.mark.parametrize(
    ("ids", "as_list"), [(None, True), ([7, 3, 9, 1], False), (torch.tensor([7, 3, 9, 1]), True), ([*"dbac"], False)]
)
def test_an_image_without_any_other_pixel_is_skipped(ids: Any, as_list: bool, several: dict[str, Any]) -> None:
    """One warning says how many and why; the ids of the others stay with their images, also if states are gathered."""
    maps, target = (each.clone() for each in BATCHES[0])
    target[1:3] = IGNORED
    metric, expected = make_metric(**several), make_metric(ignore_index=None, **several)
    arguments = [list(maps), list(target)] if as_list else [maps, target]
    with pytest.warns(UserWarning, match=r"2 of the images were skipped.*255.*`ignore_index`.*Remove") as caught:
        metric.update(*arguments, ids)
    assert len(caught) == 1
    remaining = *without_ignored((maps, target)), None if ids is None else [*ids][::3]
    expected.update(*remaining)
    result, other = metric.result(), expected.result()
    assert_same(result.aupimos, other.aupimos)
    assert result.paths == other.paths
    assert_same(result.image_ids, other.image_ids)
    with pytest.warns(UserWarning, match="2 of the images were skipped"):
        scores = aupimo(*arguments, None, WIDE_BOUNDS, image_ids=ids, reduction="none", ignore_index=IGNORED)
    assert_same(scores, metric.compute()[: len(scores)])  # two processes have each image twice, unless it has an id
    assert len(metric.compute()) == (4 if several and ids is None else 2)
    with pytest.warns(UserWarning, match="2 of the images were skipped"):
        curves = pimo(*arguments, 5, image_ids=ids, ignore_index=IGNORED)
    assert_same(tuple(curves), tuple(pimo(*remaining[:2], 5, image_ids=remaining[2])))


@pytest.mark.parametrize(("method", "ids"), [("update", None), ("forward", range(4)), ("update", [*"abcd"])])
def test_a_batch_without_any_other_pixel(ids: Any, method: str) -> None:
    """It adds nothing, and what came before and comes after counts, with ids of either kind."""
    maps, target = BATCHES[0]
    metric = make_metric()
    with caught_texts() as texts:
        getattr(metric, method)(maps, torch.full_like(target, IGNORED), ids)
    assert sum("4 of the images were skipped" in text for text in texts) == 1
    with pytest.warns(UserWarning, match="there is no image"):
        copy.deepcopy(metric).compute()
    metric.update(maps, target, [5, 6, 7, 8])
    assert_same(metric.compute(), expected_of(metric, BATCHES[:1]))


def test_ignored_pixels_part_regions() -> None:
    """An ignored column parts a region of AUPRO in two, each with its own score, and counts in neither."""
    target = torch.zeros(1, 4, 9, dtype=torch.int32)
    target[0, 1:3, 1:8] = 1
    target[0, :, 4] = IGNORED
    maps = torch.zeros(1, 4, 9, dtype=torch.float64)
    maps[0, 1:3, 5:8], maps[..., 4] = 1.0, 1000.0
    for images in ((maps, target), ([*maps], [*target])):
        scores = aupro(*images, ignore_index=IGNORED, reduction="none")
        assert scores.tolist() == pytest.approx([0.15, 1], abs=1e-12)  # by chance, and found; sums of float64


def test_other_values_are_errors() -> None:
    """A target may hold 0, 1 and the value that is ignored; a NaN in a map is an error in an ignored pixel, too."""
    maps, target = BATCHES[0]
    for function in (make_metric().update, partial(aupimo, ignore_index=255), partial(aupro, ignore_index=255)):
        with pytest.raises(ValueError, match="only 0 and 1, and 255 as `ignore_index`, but got other values"):
            function(maps, target.index_fill(2, torch.tensor([9]), 254))
        with pytest.raises(ValueError, match="hold no NaN, but got NaN in 4 of the maps"):
            function(maps.masked_fill(target == IGNORED, math.nan), target)
    for value in (-1, 255 + 256, 2**40):  # as bytes they are 255
        with pytest.raises(ValueError, match=f"only 0 and 1, and {value} as"):
            make_metric(ignore_index=value).update(maps, target.byte())
