"""Image ids order the images, and an image that comes twice counts once."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import (
    BATCHES,
    FPR_BOUNDS,
    TEXTS,
    assert_same,
    by_function,
    join,
    make_aupimo,
    make_batch,
)

from aupimo_torchmetrics import PIMO
from aupimo_torchmetrics.functional import aupimo, pimo


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


def test_a_repeat_does_not_set_the_sampled_thresholds() -> None:
    """Sampled thresholds begin at the lowest normal score of the images that count, not at that of a repeated one."""
    preds, target = make_batch("NNA", 0)
    metric = make_aupimo(1000)
    metric.update(preds, target, image_ids=[0, 1, 2])
    repeat = preds[:2].clone()
    repeat[:, 2, 2] = -500.0
    metric.update(repeat, target[:2], image_ids=[0, 1])
    expected = make_aupimo(1000)
    expected.update(preds, target)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert_same(metric.compute(), expected.compute())
    assert metric.result().threshold_bounds == expected.result().threshold_bounds


def test_texts_order_images_and_count_them_once() -> None:
    """Texts do what integers do: one image once, in the order of the texts, which are the paths of the result."""
    preds, target = join(BATCHES)
    metric = make_aupimo(reduction="none")
    for part in ([7, 3, 9], [0, 1, 2, 3], [8, 5, 4], [6], [7]):
        metric.update(preds[part], target[part], image_ids=[TEXTS[index] for index in part])
    order = sorted(range(10), key=TEXTS.__getitem__)
    assert_same(metric.compute(), by_function(metric, preds[order], target[order]))
    result = metric.result()
    assert result.paths == sorted(TEXTS)
    assert result.image_ids is None


@pytest.mark.parametrize(
    "kind", [list, tuple, np.array, iter, dict.fromkeys, lambda texts: [Path(text) for text in texts]]
)
def test_forms_of_texts(kind: Any) -> None:
    """Texts may be a list, a tuple, an array, any iterable, or paths."""
    preds, target = make_batch("NA", 0)
    metric = make_aupimo(reduction="none")
    metric.update(preds.flip(0), target.flip(0), image_ids=kind(["b.png", "a.png"]))
    assert_same(metric.compute(), by_function(metric, preds, target))
    assert metric.result().paths == ["a.png", "b.png"]


def test_images_without_texts_follow_those_with() -> None:
    """Images without an id all count, stand behind the others, and have an empty path."""
    preds, target = join(BATCHES)
    metric = make_aupimo(reduction="none")
    metric.update(preds[2:4], target[2:4])
    metric.update(preds[:2].flip(0), target[:2].flip(0), image_ids=["b", "a"])
    metric.update(preds[4:], target[4:])
    assert_same(metric.compute(), by_function(metric, preds, target))
    assert metric.result().paths == ["a", "b", *[""] * 8]


def test_texts_survive_pruning_forward_merging_and_loading() -> None:
    """However the states come together, each image keeps its text."""
    batches = [make_batch("NANN", seed) for seed in range(6)]
    texts = [[f"{seed}/{index}.png" for index in range(4)] for seed in range(6)]
    make = {"reduction": "none", "normal_buffer": 16}
    one, other = make_aupimo(**make), make_aupimo(**make)
    for metric, parts in ((one, range(3)), (other, range(3, 6))):
        for seed in parts:
            (metric if seed % 2 else metric.update)(*batches[seed], image_ids=texts[seed])
    one.merge_state(other)
    one.persistent(mode=True)
    loaded = make_aupimo(**make)
    loaded.load_state_dict(one.state_dict())
    expected = by_function(loaded, *join(batches))
    for metric in (one, loaded):
        assert_same(metric.compute(), expected, atol=1e-7)  # order of summation
        assert metric.result().paths == [text for batch in texts for text in batch]


@pytest.mark.parametrize("first", [[0, 1], ["a", "b"]])
@pytest.mark.parametrize("call", ["update", "forward", "merge_state"])
def test_kinds_of_ids_cannot_be_mixed(first: list[Any], call: str) -> None:
    """Integers after texts, or texts after integers, are an error, and nothing of their batch is kept."""
    other = ["c", "d"] if first == [0, 1] else [2, 3]
    metric = make_aupimo(reduction="none")
    metric.update(*make_batch("NA", 0), image_ids=first)
    expected = metric.compute()
    incoming = make_aupimo(reduction="none")
    incoming.update(*make_batch("NA", 1), image_ids=other)
    calls = {"update": metric.update, "forward": metric}
    with pytest.raises(ValueError, match="all integers or all texts in one metric"):
        metric.merge_state(incoming) if call == "merge_state" else calls[call](*make_batch("NA", 1), image_ids=other)
    assert len(metric.result().aupimos) == 2
    metric.update(*make_batch("NA", 0), image_ids=first)
    assert len(metric.result().aupimos) == len(expected)
    metric.reset()
    metric.update(*make_batch("NA", 1), image_ids=other)


def test_texts_of_different_images_conflict() -> None:
    """If two images have one text the first counts, and a warning tells of it."""
    preds, target = make_batch("NA", 0)
    metric = make_aupimo()
    metric.update(preds, target, image_ids=["a", "b"])
    metric.update(*make_batch("AN", 5), image_ids=["a", "b"])
    with pytest.warns(UserWarning, match="under the same id, for 2 of the `image_ids`"):
        assert_same(metric.compute(), by_function(metric, preds, target))
    assert "under the same id" in metric.result().warnings[0]


@pytest.mark.parametrize("ids", [torch.tensor([4, 2, 0, 4]), ["d", "c", "a", "d"]])
def test_a_wrong_number_of_ids_is_refused_without_checks_too(ids: Any) -> None:
    """Ids that do not fit would move to other images, so their number is checked whatever `validate_args` says."""
    metric = make_aupimo(validate_args=False)
    with pytest.raises(ValueError, match=r"`image_ids` to hold one id for each of 2 images, but got .*4"):
        metric.update(*make_batch("NA", 0), image_ids=ids)
    assert not metric.aupimo_num_kept


@pytest.mark.parametrize("ids", [torch.tensor([4, 2, 0, 4]), ["d", "c", "a", "d"]])
def test_functions_take_ids(ids: Any) -> None:
    """The functions count images with one id once, in the order of the ids, for tensors and arrays."""
    preds, target = make_batch("NAA", 0)
    again = [0, 1, 2, 0]
    expected = aupimo(preds.flip(0), target.flip(0), None, FPR_BOUNDS, reduction="none")
    scores = aupimo(preds[again], target[again], None, FPR_BOUNDS, image_ids=ids, reduction="none")
    assert_same(scores, expected)
    arrays = aupimo(
        preds[again].numpy(), target[again].numpy(), None, FPR_BOUNDS, image_ids=np.array(list(ids)), reduction="none"
    )
    assert_same(torch.from_numpy(arrays), expected)
    assert_same(tuple(pimo(preds[again], target[again], image_ids=ids)), tuple(pimo(preds.flip(0), target.flip(0))))
    metric = PIMO()
    metric.update(preds[again], target[again], image_ids=ids)
    assert_same(tuple(metric.compute()), tuple(pimo(preds.flip(0), target.flip(0))))
