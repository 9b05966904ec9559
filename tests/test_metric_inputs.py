"""Whatever a batch is made of, the metric gives what the function gives, and keeps plain tensors of its own."""

from __future__ import annotations

import copy
from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from helpers import (
    BATCHES,
    MakeMetric,
    Subclass,
    assert_dtypes,
    assert_same,
    by_function,
    each_variant,
    join,
    make_aupimo,
    make_batch,
    make_ragged,
    states_of,
    updated,
)
from torch import Tensor

from aupimo_torchmetrics import AUPIMO, PixelAUROC


@each_variant
def test_batches_are_as_good_as_one_batch(make_metric: MakeMetric) -> None:
    """Updates with parts, an update with the whole and the function give one value."""
    expected = by_function(make_metric(), *join(BATCHES))
    assert_same(updated(make_metric()).compute(), expected)
    assert_same(updated(make_metric(), [join(BATCHES)]).compute(), expected)


def as_is(images: Tensor) -> Tensor:
    """Images as they are."""
    return images


FORMS: dict[str, Callable[[Tensor], Any]] = {
    "tensor": as_is,
    "with a channel": lambda images: images[:, None],
    "subclass": lambda images: images.as_subclass(Subclass),
    "array": Tensor.numpy,
    "array with a channel": lambda images: images[:, None].numpy(),
    "array of another layout": lambda images: np.asfortranarray(images.numpy()),
}
LISTS: dict[str, Callable[[Tensor], Any]] = {
    "list": list,
    "tuple": tuple,
    "list with a channel": lambda images: [*images[:, None]],
    "list of arrays": lambda images: [*images.numpy()],
}


@pytest.mark.parametrize(("of_maps", "of_masks"), [*product(FORMS, FORMS), *product(LISTS, LISTS)])
def test_forms_of_a_batch(of_maps: str, of_masks: str) -> None:
    """Tensors and arrays, with an axis of one channel or without, and lists of these mean the same batch."""
    (preds, target), forms = join(BATCHES), FORMS | LISTS
    for metric in (make_aupimo(reduction="none"), PixelAUROC()):
        expected = copy.deepcopy(metric)
        expected.update(preds, target)
        metric.update(target=forms[of_masks](target[:3]), preds=forms[of_maps](preds[:3]))
        metric.update(preds[3:], target[3:])
        assert_same(metric.compute(), expected.compute())


@pytest.mark.parametrize("shared_fpr", ["mean", "max"])
def test_images_of_different_sizes(shared_fpr: str) -> None:
    """Lists of maps of different sizes accumulate as the function sees them."""
    batches = [make_ragged("NANA", 0), make_ragged("NNA", 1)]
    # the smallest image has 940 pixels, too few for the usual lower bound
    metric = updated(AUPIMO(fpr_bounds=(2e-3, 1e-2), reduction="none", shared_fpr=shared_fpr), batches)
    assert_same(metric.compute(), by_function(metric, *join(batches)))


@pytest.mark.parametrize("preds_dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("target_dtype", [torch.bool, torch.uint8, torch.int64, torch.float32])
@pytest.mark.parametrize("method", ["update", "forward"])
def test_states_have_one_form(preds_dtype: torch.dtype, target_dtype: torch.dtype, method: str) -> None:
    """Whatever the input is, states are plain tensors of fixed dtypes, 1-D in lists, and without gradient."""
    preds, target = join(BATCHES)
    metric = make_aupimo()
    getattr(metric, method)(preds.to(preds_dtype).requires_grad_(), target.to(target_dtype))
    states = states_of(metric)
    assert_dtypes(metric)
    for name, parts in states.items():
        assert all(type(part) is Tensor and not part.requires_grad for part in parts)
        assert all(part.ndim == 1 for part in parts) == (name != "aupimo_floor")


@each_variant
@pytest.mark.parametrize("method", ["update", "forward"])
def test_gradients_are_not_kept(make_metric: MakeMetric, method: str) -> None:
    """Maps that require gradients are scored, and neither states nor values require any."""
    preds, target = join(BATCHES)
    metric = make_metric()
    returned = getattr(metric, method)((preds.clone().requires_grad_() * 1.0), target)
    value = copy.deepcopy(metric).compute()
    assert_same(value, by_function(metric, preds, target))
    for output in (value, returned):
        parts = output if isinstance(output, tuple) else [output]
        assert not any(part.requires_grad for part in parts if part is not None)


@pytest.mark.parametrize("method", ["update", "forward"])
@pytest.mark.parametrize("as_list", [False, True])
def test_states_own_their_memory(method: str, as_list: bool) -> None:
    """What the caller does to maps, masks and ids afterwards does not change the metric."""
    preds, target = join(BATCHES)
    preds, target, ids = preds.clone(), target.clone(), torch.arange(len(preds)).flip(0)
    expected = by_function(make_aupimo(reduction="none"), preds.flip(0), target.flip(0))
    metric = make_aupimo(reduction="none")
    arguments = (list(preds), list(target)) if as_list else (preds, target)
    getattr(metric, method)(*arguments, image_ids=ids)
    preds.fill_(7.0), target.fill_(True), ids.fill_(3)
    assert_same(metric.compute(), expected)


@pytest.mark.parametrize("method", ["update", "forward"])
def test_states_are_plain_tensors(method: str) -> None:
    """Tensors of a subclass are scored, and nothing of their class is kept."""
    preds, target = join(BATCHES)
    metric = make_aupimo(reduction="none")
    ids = torch.arange(len(preds)).as_subclass(Subclass)
    getattr(metric, method)(preds.as_subclass(Subclass), target.as_subclass(Subclass), image_ids=ids)
    kinds = {name: {type(part) for part in parts} for name, parts in states_of(metric).items()}
    assert set(map(frozenset, kinds.values())) == {frozenset({Tensor})}
    assert type(metric.compute()) is Tensor
    assert_same(metric.compute(), by_function(metric, preds, target))


@each_variant
def test_checks_can_be_skipped(make_metric: MakeMetric) -> None:
    """`validate_args=False` changes no value, and lets through what would raise."""
    metric = make_metric(validate_args=False)
    assert_same(updated(metric).compute(), updated(make_metric()).compute())
    preds, target = make_batch("AN", 3)
    metric.update(preds, 2 * target.long())
    with pytest.raises(ValueError, match="hold only 0 and 1"):
        make_metric().update(preds, 2 * target.long())
