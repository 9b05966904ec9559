"""Image ids order the images, and an image that comes twice counts once."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from helpers import BATCHES, assert_same, by_function, join, make_aupimo, make_batch


def test_ids_order_images_and_count_them_once() -> None:
    """Scores come in the order of the ids, whatever the order of the updates, and an image given twice counts once."""
    preds, target = join(BATCHES)
    metric = make_aupimo(reduction="none")
    for ids in ([7, 3, 9], [0, 1, 2, 3], [8, 5, 4], [6], [7]):
        metric.update(preds[ids], target[ids], image_ids=torch.tensor(ids))
    assert_same(metric.compute(), by_function(metric, preds, target))
    assert_same(metric.result().image_ids, torch.arange(10))


@pytest.mark.parametrize(
    "ids", [[0, 1], (0, 1), torch.tensor([0, 1]), torch.tensor([0, 1], dtype=torch.uint8)], ids=type
)
def test_forms_of_ids(ids: Any) -> None:
    """Ids may be a list, a tuple or a tensor of any integer dtype."""
    preds, target = make_batch("NA", 0)
    metric = make_aupimo(reduction="none")
    metric.update(preds.flip(0), target.flip(0), image_ids=ids[::-1] if isinstance(ids, list | tuple) else ids.flip(0))
    assert_same(metric.compute(), by_function(metric, preds, target))
    assert metric.aupimo_image_ids[0].dtype == torch.int64


def test_images_without_ids_follow_those_with() -> None:
    """Images without ids all count, and stand behind the others in the order of their updates."""
    preds, target = join(BATCHES)
    metric = make_aupimo(reduction="none")
    metric.update(preds[6:8], target[6:8])
    metric.update(preds[:6].flip(0), target[:6].flip(0), image_ids=range(5, -1, -1))
    metric.update(preds[8:], target[8:])
    metric.update(preds[:2], target[:2], image_ids=[0, 1])
    assert_same(metric.compute(), by_function(metric, preds, target))
    assert metric.result().image_ids.tolist() == [0, 1, 2, 3, 4, 5, -1, -1, -1, -1]


def test_largest_id_is_an_id() -> None:
    """The largest integer is an id like any other, also behind an image without an id."""
    preds, target = make_batch("NAA", 0)
    metric = make_aupimo(reduction="none")
    metric.update(preds[2:], target[2:])
    metric.update(preds[:2], target[:2], image_ids=[0, 2**63 - 1])
    metric.update(preds[1:2], target[1:2], image_ids=[2**63 - 1])
    assert_same(metric.compute(), by_function(metric, preds, target))
    assert metric.result().image_ids.tolist() == [0, 2**63 - 1, -1]


@pytest.mark.parametrize("classes", ["NA", "AA", "NN"])
def test_ids_of_different_images_conflict(classes: str) -> None:
    """If two different images have one id, the first counts, and a warning says so."""
    preds, target = make_batch("NA", 0)
    other_preds, other_target = make_batch(classes, 5)
    metric = make_aupimo()
    metric.update(preds, target, image_ids=[0, 1])
    metric.update(3 * other_preds, other_target, image_ids=[0, 1])
    with pytest.warns(UserWarning, match="under the same id, for 2 of the `image_ids`"):
        assert_same(metric.compute(), by_function(metric, preds, target))
