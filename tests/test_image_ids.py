"""Image ids order the images, and an image that comes twice counts once."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import BATCHES, FPR_BOUNDS, TEXTS, assert_same, by_function, caught_texts, join, make_aupimo, make_batch

from aupimo_torchmetrics import PIMO
from aupimo_torchmetrics.functional import aupimo, pimo

INTEGERS = [4, 0, 2**63 - 1, 3, 9, 5, 8, 1, 7, 6]
"""Ids of ten images; the largest integer is an id like any other."""


@pytest.mark.parametrize("ids", [INTEGERS, TEXTS], ids=["integers", "texts"])
def test_ids_order_images_and_count_them_once(ids: list[Any]) -> None:
    """Whatever the order of the updates, scores come in that of the ids, and an image given twice counts once.

    Images without an id all count, and stand behind the others in the order of their updates.
    """
    preds, target = join(BATCHES)
    metric = make_aupimo(reduction="none")
    metric.update(preds[:1], target[:1])
    for part in ([7, 3, 9], [0, 1, 2, 3], [8, 5, 4], [6], [7], [2]):
        metric.update(preds[part], target[part], image_ids=[ids[index] for index in part])
    metric.update(preds[8:], target[8:])
    order = [*sorted(range(10), key=ids.__getitem__), 0, 8, 9]
    assert_same(metric.compute(), by_function(metric, preds[order], target[order]))
    result = metric.result()
    if ids is TEXTS:
        assert (result.paths, result.image_ids) == ([*sorted(TEXTS), "", "", ""], None)
    else:
        assert (result.paths, result.image_ids.tolist()) == (None, [*sorted(INTEGERS), -1, -1, -1])


FORMS = [
    *(kind([1, 0]) for kind in (list, tuple, torch.tensor, partial(torch.tensor, dtype=torch.uint8))),
    *(kind(["b.png", "a.png"]) for kind in (list, tuple, np.array, iter, dict.fromkeys)),
    [Path("b.png"), Path("a.png")],
]


@pytest.mark.parametrize("ids", FORMS, ids=type)
def test_forms_of_ids(ids: Any) -> None:
    """Ids may be a list, a tuple or a tensor of any integer dtype, and texts an array, any iterable, or paths."""
    preds, target = make_batch("AN", 0)
    metric = make_aupimo(reduction="none")
    metric.update(preds, target, image_ids=ids)
    assert_same(metric.compute(), by_function(metric, preds.flip(0), target.flip(0)))
    result = metric.result()
    assert result.paths == ["a.png", "b.png"] or (result.image_ids.dtype, [*result.image_ids]) == (torch.int64, [0, 1])


@pytest.mark.parametrize(("classes", "ids"), [("NA", [0, 1]), ("AA", ["a", "b"]), ("NN", [0, 1])])
def test_ids_of_different_images_conflict(classes: str, ids: list[Any]) -> None:
    """If two different images have one id, the first counts, and a warning says so."""
    preds, target = make_batch("NA", 0)
    other_preds, other_target = make_batch(classes, 5)
    metric = make_aupimo()
    metric.update(preds, target, image_ids=ids)
    metric.update(3 * other_preds, other_target, image_ids=ids)
    with pytest.warns(UserWarning, match="under the same id, for 2 of the `image_ids`"):
        assert_same(metric.compute(), by_function(metric, preds, target))
    assert "under the same id" in metric.result().warnings[0]


def test_a_repeat_does_not_set_the_sampled_thresholds() -> None:
    """Sampled thresholds begin at the lowest normal score of the images that count, not at that of a repeated one."""
    preds, target = make_batch("NNA", 0)
    metric, expected = make_aupimo(1000), make_aupimo(1000)
    metric.update(preds, target, image_ids=[0, 1, 2])
    repeat = preds[:2].clone()
    repeat[:, 2, 2] = -500.0
    metric.update(repeat, target[:2], image_ids=[0, 1])
    expected.update(preds, target)
    with caught_texts():
        assert_same(metric.compute(), expected.compute())
    assert metric.result().threshold_bounds == expected.result().threshold_bounds


def test_texts_survive_pruning_forward_merging_and_loading() -> None:
    """However the states come together, each image keeps its text."""
    batches = [make_batch("NANN", seed) for seed in range(6)]
    texts = [[f"{seed}/{index}.png" for index in range(4)] for seed in range(6)]
    one, other, loaded = (make_aupimo(reduction="none", normal_buffer=16) for _ in range(3))
    for metric, parts in ((one, range(3)), (other, range(3, 6))):
        for seed in parts:
            (metric if seed % 2 else metric.update)(*batches[seed], image_ids=texts[seed])
    one.merge_state(other)
    one.persistent(mode=True)
    loaded.load_state_dict(one.state_dict())
    for metric in (one, loaded):
        assert_same(metric.compute(), by_function(loaded, *join(batches)), atol=1e-7)  # order of summation
        assert metric.result().paths == [text for batch in texts for text in batch]


@pytest.mark.parametrize(("first", "other"), [([0, 1], ["c", "d"]), (["a", "b"], [2, 3])])
def test_kinds_of_ids_cannot_be_mixed(first: list[Any], other: list[Any]) -> None:
    """Integers after texts, or texts after integers, are an error, and nothing of their batch is kept."""
    metric, incoming = make_aupimo(reduction="none"), make_aupimo(reduction="none")
    metric.update(*make_batch("NA", 0), image_ids=first)
    expected, batch = metric.compute(), (*make_batch("NA", 1), other)
    incoming.update(*batch)
    for call in (lambda: metric.update(*batch), lambda: metric(*batch), lambda: metric.merge_state(incoming)):
        with pytest.raises(ValueError, match="all integers or all texts in one metric"):
            call()
        assert len(metric.result().aupimos) == 2
    metric.update(*make_batch("NA", 0), image_ids=first)
    assert_same(metric.compute(), expected)
    metric.reset()
    metric.update(*make_batch("NA", 1), image_ids=other)


def test_a_wrong_number_of_ids_is_refused_without_checks_too() -> None:
    """Ids that do not fit would move to other images, so their number is checked whatever `validate_args` says."""
    metric = make_aupimo(validate_args=False)
    with pytest.raises(ValueError, match=r"`image_ids` to hold one id for each of 2 images, but got .*4"):
        metric.update(*make_batch("NA", 0), image_ids=["d", "c", "a", "d"])
    assert not metric.aupimo_num_kept


@pytest.mark.parametrize("ids", [torch.tensor([4, 2, 0, 4]), ["d", "c", "a", "d"]])
def test_functions_take_ids(ids: Any) -> None:
    """The functions count images with one id once, in the order of the ids, for tensors and arrays."""
    preds, target = make_batch("NAA", 0)
    reverse, again = (preds.flip(0), target.flip(0)), (preds[[0, 1, 2, 0]], target[[0, 1, 2, 0]])
    settings: dict[str, Any] = {"fpr_bounds": FPR_BOUNDS, "reduction": "none"}
    expected = aupimo(*reverse, **settings)
    assert_same(aupimo(*again, image_ids=ids, **settings), expected)
    arrays = aupimo(*(each.numpy() for each in again), image_ids=np.array(list(ids)), **settings)
    assert_same(torch.from_numpy(arrays), expected)
    metric = PIMO()
    metric.update(*again, image_ids=ids)
    for curves in (pimo(*again, image_ids=ids), metric.compute()):
        assert_same(tuple(curves), tuple(pimo(*reverse)))
