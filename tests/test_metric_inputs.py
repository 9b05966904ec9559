"""Whatever a batch is made of, the metric gives what the function gives, and keeps plain tensors of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from helpers import (
    BATCHES,
    FUNCTIONS,
    MakeMetric,
    Subclass,
    assert_same,
    by_function,
    each_metric,
    ignoring_uncertainty,
    join,
    make_aupimo,
    make_batch,
    states_of,
    updated,
)
from torch import Tensor

from aupimo_torchmetrics import AUPIMO, AUPRO, PIMO, ImageAUROC

FORMS: dict[str, Callable[[Tensor], Any]] = {
    "tensor": Tensor.clone,
    "with a channel": lambda images: images[:, None],
    "subclass": lambda images: images.as_subclass(Subclass),
    "array": Tensor.numpy,
    "array with a channel": lambda images: images[:, None].numpy(),
    "array in Fortran order": lambda images: np.asfortranarray(images.numpy()),
    "read-only array": lambda images: np.broadcast_to(images.numpy(), images.shape),
    "array of negative strides": lambda images: images.numpy()[:, ::-1, ::-1].copy()[:, ::-1, ::-1],
    "array of another byte order": lambda images: images.numpy().astype(images.numpy().dtype.newbyteorder()),
    "transposed array": lambda images: images.mT.contiguous().numpy().transpose(0, 2, 1),
}
LISTS: dict[str, Callable[[Tensor], Any]] = {
    "list": list,
    "tuple": tuple,
    "list with a channel": lambda images: [*images[:, None]],
    "list of arrays": lambda images: [*images.numpy()],
    "list of arrays of another byte order": lambda images: [*FORMS["array of another byte order"](images)],
}


def pairs_of(forms: dict[str, Any]) -> list[tuple[Any, Any]]:
    """Each form for maps with the same for masks, and with the next one."""
    found = [*forms.values()]
    return [*zip(found, found, strict=True), *zip(found, [*found[1:], found[0]], strict=True)]


@pytest.mark.parametrize("metric", [make_aupimo(reduction="none"), AUPRO(), ImageAUROC()])
def test_forms_of_a_batch(metric: Any) -> None:
    """Tensors and arrays, with an axis of one channel or without, and lists of these mean the same batch."""
    preds, target = join(BATCHES)
    expected = by_function(metric, preds, target)
    for of_maps, of_masks in (*pairs_of(FORMS), *pairs_of(LISTS)):
        metric.reset()
        metric.update(target=of_masks(target[:3]), preds=of_maps(preds[:3]))
        metric.update(preds[3:], target[3:])
        assert_same(metric.compute(), expected)
    assert_same((preds, target), join(BATCHES))


@each_metric
@pytest.mark.parametrize(
    ("method", "form", "preds_dtype", "target_dtype"),
    [
        ("update", Tensor.clone, torch.float16, torch.bool),
        ("update", list, torch.bfloat16, torch.uint8),
        ("forward", Tensor.clone, torch.float32, torch.int64),
        ("forward", list, torch.float64, torch.float32),
    ],
)
@ignoring_uncertainty
@pytest.mark.filterwarnings("ignore:AUPIMO may be inaccurate")  # of many equal scores
def test_states_are_plain_tensors_of_their_own(
    make_metric: MakeMetric, method: str, form: Any, preds_dtype: torch.dtype, target_dtype: torch.dtype
) -> None:
    """Of any dtype and class, with gradient, overwritten later: states are plain, of fixed dtypes, and none of it.

    The value is that of the function for the maps in that precision, and float32.
    """
    maps, masks = (each.flip(0) for each in join(BATCHES))
    preds, target, ids = maps.to(preds_dtype), masks.to(target_dtype), torch.arange(len(maps)).flip(0)
    metric = make_metric()
    has_ids = isinstance(metric, AUPIMO | PIMO)
    expected = by_function(metric, *(each.flip(0) if has_ids else each for each in (preds.float(), masks)))
    given = (preds.clone().requires_grad_() * 1.0).as_subclass(Subclass), target.as_subclass(Subclass)
    options = {"image_ids": ids.as_subclass(Subclass)} if has_ids else {}
    returned = getattr(metric, method)(*map(form, given), **options)
    with torch.no_grad():
        given[0].fill_(7.0), given[1].fill_(1), ids.fill_(3)
    for name, parts in states_of(metric).items():
        assert all(type(part) is Tensor and not part.requires_grad for part in parts)
        assert not has_ids or all(part.ndim == (name not in {"aupimo_floor", "aupimo_normal_min"}) for part in parts)
    if has_ids:  # the others keep maps in their precision
        plain = make_metric()
        plain.update(maps, masks, image_ids=range(len(maps)))
        expected_dtypes = {name: {part.dtype for part in parts} for name, parts in states_of(plain).items()}
        assert {name: {part.dtype for part in parts} for name, parts in states_of(metric).items()} == expected_dtypes
    value = metric.compute()
    assert_same(value, expected)
    for output in (value, returned):
        for part in output if isinstance(output, tuple) else [output]:
            assert part is None or (type(part) is Tensor and not part.requires_grad and part.dtype == torch.float32)


@each_metric
@ignoring_uncertainty
def test_checks_can_be_skipped(make_metric: MakeMetric) -> None:
    """`validate_args=False` changes no value, of a function neither, and lets through what would raise."""
    metric = make_metric(validate_args=False)
    assert_same(updated(metric).compute(), updated(make_metric()).compute())
    preds, target = make_batch("AN", 3)
    metric.update(preds, 2 * target.long())
    with pytest.raises(ValueError, match="hold only 0 and 1"):
        make_metric().update(preds, 2 * target.long())
    if function := FUNCTIONS.get(type(metric)):
        assert_same(function(preds, target, validate_args=False), function(preds, target))
