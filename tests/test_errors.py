"""Every rejected call: the class of the error, what its message says, and that nothing has changed by it."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from inspect import signature
from typing import Any

import pytest
import torch
from helpers import BATCHES, FUNCTIONS, VARIANTS, assert_same, by_function, join, make_images, score, states_of, updated
from torch import Tensor

from aupimo_torchmetrics import AUPIMO, AUPRO, PIMO, ImageAUROC, PixelAUROC, vad_metrics
from aupimo_torchmetrics.functional import aupimo, pimo, pixel_auroc

MAPS, MASKS = make_images(0, 2, size=(4, 6))
WITH_NAN = MAPS.clone()
WITH_NAN[1, 2, 3] = math.nan
LIST_OF_MAPS, LIST_OF_MASKS = list(MAPS), list(MASKS)

Rejected = dict[str, tuple[Any, Any, type[Exception], str]]
BAD_TENSORS: Rejected = {
    "integer maps": (MASKS.long(), MASKS, TypeError, r"`preds` to be .*scores of dtype float16.*got torch\.int64"),
    "swapped arguments": (MASKS, MAPS, TypeError, r"got torch\.bool.*arguments are swapped"),
    "complex masks": (MAPS, MASKS.cfloat(), TypeError, r"`target` to be bool, integer or floating.*complex64"),
    "one image without batch axis": (MAPS[0], MASKS[0], ValueError, r"\(N, H, W\).*got \(4, 6\).*`preds\[None\]`"),
    "two channels": (MAPS[None], MASKS[None], ValueError, r"\(N, 1, H, W\), but got \(1, 2, 4, 6\).*amax"),
    "other size": (MAPS, MASKS[:, :3], ValueError, r"the same shape, but got \(2, 4, 6\) and \(2, 3, 6\)"),
    "labels of images": (MAPS, torch.tensor([0, 1]), ValueError, r"`target` to be masks.*shape \(2,\)\. Labels"),
    "no rows": (MAPS[:, :0], MASKS[:, :0], ValueError, r"maps with pixels in them, but got shape \(2, 0, 6\)"),
    "NaN in a map": (WITH_NAN, MASKS, ValueError, r"hold no NaN, but got NaN in 1 of the maps.*nan_to_num"),
    "masks of 255": (MAPS, MASKS.byte() * 255, ValueError, r"values: 255\. .*`target > 0`.*`ignore_index`"),
    "NaN in a mask": (MAPS, WITH_NAN * 0, ValueError, r"only 0 and 1"),
    "other value in one pixel": (MAPS, MASKS.byte().index_fill(2, torch.tensor([5]), 2), ValueError, r"only 0 and 1"),
}
SPARSE = MAPS.to_sparse()
NESTED = torch.nested.nested_tensor([MAPS[0], MAPS[1, :3]], layout=torch.jagged)
BAD_LAYOUTS: Rejected = {
    "sparse maps": (SPARSE, MASKS, TypeError, r"`preds` to be a dense tensor, but got a torch\.sparse_coo.*to_dense"),
    "sparse masks": (MAPS, SPARSE, TypeError, r"`target` to be a dense tensor.*`target\.to_dense\(\)`"),
    "nested": (NESTED, NESTED, TypeError, r"got a nested tensor.*`list\(preds\.unbind\(\)\)`"),
}
BAD_LISTS: Rejected = {
    "tensor and list": (MAPS, LIST_OF_MASKS, TypeError, r"both tensors or both lists.*got Tensor and list"),
    "nothing": (None, None, TypeError, r"`preds` to be a tensor or a list of tensors, but got NoneType"),
    "a name": ("maps.png", LIST_OF_MASKS, TypeError, r"`preds` to be a tensor or a list of tensors, but got str"),
    "an iterator": (iter(LIST_OF_MAPS), LIST_OF_MASKS, TypeError, r"`preds` to be a tensor or a list of tensors, but"),
    "lists of numbers": ([1.0, 2.0], [0, 1], TypeError, r"hold tensors, but got float and int"),
    "unequal length": (LIST_OF_MAPS, LIST_OF_MASKS[:1], ValueError, r"of one length, but got 2 and 1 items"),
    "batch in a list": ([MAPS], [MASKS], ValueError, r"each map in the list `preds` .*\(H, W\), but got \(2, 4, 6\)"),
    "other size in a list": (LIST_OF_MAPS, [MASKS[0], MASKS[1, :3]], ValueError, r"got \(4, 6\) and \(3, 6\)"),
    "integers in a list": ([MAPS[0], MAPS[1].int()], LIST_OF_MASKS, TypeError, r"got torch\.int32"),
    "no pixels in a list": ([MAPS[0], MAPS[1, :0]], [MASKS[0], MASKS[1, :0]], ValueError, r"pixels in them.*\(0, 6\)"),
}
BAD_IMAGES = BAD_TENSORS | BAD_LAYOUTS | BAD_LISTS

BAD_IDS: dict[str, tuple[Any, type[Exception], str]] = {
    "too few": ([1], ValueError, r"one id for each of .*2 images, but got shape \(1,\)"),
    "two axes": (torch.tensor([[1], [2]]), ValueError, r"one id for each of .*2 images, but got shape \(2, 1\)"),
    "one text": ("ab", TypeError, r"`image_ids` to be a list .*, but got the single text 'ab'"),
    "empty text": (["a.png", ""], ValueError, r"`image_ids` to be texts that are not empty"),
    "text and number": (["a.png", 1], TypeError, r"`image_ids` to be all integers or all texts, but got .* a int"),
    "number and text": ([1, "a.png"], TypeError, r"`image_ids` to be integers, but could not read"),
    "negative": ([3, -1], ValueError, r"`image_ids` to be 0 or larger"),
    "floating": ([1.0, 2.0], TypeError, r"`image_ids` to be integers, but got torch\.float32"),
    "bool": ([True, False], TypeError, r"`image_ids` to be integers, but got torch\.bool"),
}

BAD_SETTINGS: dict[str, list[tuple[Any, type[Exception], str]]] = {
    "fpr_bounds": [
        (0.1, TypeError, r"to be a pair of numbers \(lower, upper\), but got float"),
        ("ab", TypeError, r"to be a pair of numbers .*but got str"),
        ({1e-5, 1e-4}, TypeError, r"to be a pair of numbers .*but got set"),
        ((1e-5, 1e-4, 1e-3), ValueError, r"to be a pair .*but got 3 values"),
        (("1e-5", "1e-4"), TypeError, r"to hold two numbers, but got a str"),
        ((False, True), TypeError, r"to hold two numbers, but got a bool"),
        ((1e-4, 1e-5), ValueError, r"0 < lower < upper <= 1, but got \(0\.0001, 1e-05\); they are in reverse order"),
        ((1e-4, 1e-4), ValueError, r"0 < lower < upper <= 1, but got \(0\.0001, 0\.0001\)\. The paper"),
        *((bad, ValueError, r"0 < lower < upper <= 1") for bad in ((0.0, 1e-4), (1e-5, 1.0000001), (math.nan, 1e-4))),
        ((1e-5, math.nan), ValueError, r"0 < lower < upper <= 1"),
    ],
    "num_thresholds": [
        *((bad, ValueError, rf"to be None or at least 2, but got {bad}") for bad in (1, -300_000)),
        *(
            (bad, TypeError, r"to be None or an integer, but got (bool|float|tuple)")
            for bad in (True, 3e5, (1e-5, 1e-4))
        ),
    ],
    "normal_buffer": [
        *((bad, ValueError, rf"to be None or from 1 to 2\*\*63 - 1, but got {bad}") for bad in (0, 2**63)),
        *((bad, TypeError, r"to be None or an integer, but got (bool|float)") for bad in (True, 65536.0)),
    ],
    "reduction": [(bad, ValueError, rf"to be 'mean' or 'none', but got {bad!r}") for bad in ("NONE", None, 1)],
    "shared_fpr": [(bad, ValueError, rf"to be 'mean' or 'max', but got {bad!r}") for bad in ("MAX", "mean-fpr", None)],
    "ignore_index": [
        (1, ValueError, "to be .* other than 0 and 1, but got 1"),
        (2**63, ValueError, "to be .* of 64 bits other than 0 and 1, but got 9223372036854775808"),
        *((bad, TypeError, "to be None or an integer, but got (bool|float)") for bad in (True, 255.0)),
    ],
    "fpr_limit": [
        *((bad, ValueError, r"to be in \(0, 1\]") for bad in (0, 1.1, math.nan)),
        ("0.3", TypeError, "to be a number, but got str"),
    ],
    "num_bins": [
        *((bad, ValueError, r"to be None or a power of two from 2 to 2\*\*24, but") for bad in (1, 1000, 2**25, -4)),
        *((bad, TypeError, "to be None or an integer") for bad in (2.0, True)),
    ],
    "image_score": [
        (bad, ValueError, "to be 'max', 'mean' or a share as 'top_1%', but got")
        for bad in ("median", "top_101%", "top_%", "top_0%")
    ],
}
CALLS: dict[str, Callable[..., Any]] = {
    **{each.__name__: partial(each, MAPS, MASKS) for each in (aupimo, pimo, *FUNCTIONS.values())},
    **{each.__name__: each for each in (AUPIMO, PIMO, *FUNCTIONS, vad_metrics)},
}
SETTINGS_OF_CALLS = [
    (name, setting) for name, call in CALLS.items() for setting in signature(call).parameters if setting in BAD_SETTINGS
]
METRICS: list[Any] = [*(make() for make in VARIANTS.values()), VARIANTS["none"](dist_sync_on_step=True)]
METRICS += [PixelAUROC(), AUPRO(num_bins=16), ImageAUROC()]
for each in METRICS:
    updated(each)
RESULT = score(MAPS, MASKS, (0.05, 0.5))


def assert_no_trace(metrics: list[Any], batches: list[Any], error: type[Exception], message: str) -> None:
    """Assert that metrics that hold images reject batches as a whole: nothing of them is kept, and nothing is lost."""
    for metric in metrics:
        before = {name: [*map(id, parts)] for name, parts in states_of(metric).items()}
        for batch in batches:
            for call in (metric.update, metric):
                with pytest.raises(error, match=f"(?s)^Expected .*{message}"):
                    call(*batch)
                assert {name: [*map(id, parts)] for name, parts in states_of(metric).items()} == before
        metric._computed = metric._result = None
        assert_same(metric.compute(), by_function(metric, *join(BATCHES)))


@pytest.mark.parametrize(("preds", "target", "error", "message"), BAD_IMAGES.values(), ids=BAD_IMAGES.keys())
@pytest.mark.filterwarnings("ignore:AUPRO is uncertain")  # by few bins
def test_images_are_rejected(preds: Any, target: Any, error: type[Exception], message: str) -> None:
    """What cannot be scored raises an error that says what was expected and what came; nothing of it is kept."""
    for function in (aupimo, pimo, pixel_auroc):
        with pytest.raises(error, match=f"(?s)^Expected .*{message}"):
            function(preds, target)
    if isinstance(preds, Tensor) and isinstance(target, Tensor) and preds.layout == target.layout == torch.strided:
        with pytest.raises(error, match=f"(?s)^Expected .*{message}"):
            aupimo(preds.numpy(), target.numpy())
    assert_no_trace(METRICS, [(preds, target)], error, message)


@pytest.mark.parametrize(("image_ids", "error", "message"), BAD_IDS.values(), ids=BAD_IDS.keys())
def test_metrics_reject_image_ids(image_ids: Any, error: type[Exception], message: str) -> None:
    """Ids are one integer of at least 0 for each image; a batch with wrong ids is not half taken."""
    batches = [(MAPS, MASKS, image_ids), (LIST_OF_MAPS, LIST_OF_MASKS, image_ids)]
    assert_no_trace(METRICS[: len(VARIANTS) + 1], batches, error, message)


@pytest.mark.parametrize(("call", "name"), SETTINGS_OF_CALLS)
def test_settings_are_rejected(call: str, name: str) -> None:
    """A wrong setting raises an error that names it and says what was expected and what came."""
    for value, error, message in BAD_SETTINGS[name]:
        with pytest.raises(error, match=f"^Expected `{name}` .*{message}"):
            CALLS[call](**{name: value})


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())
def test_unknown_keywords_are_rejected(call: Callable[..., Any]) -> None:
    """A misspelt setting is no torchmetrics keyword either, and is named."""
    with pytest.raises((ValueError, TypeError), match=r"(?i)unexpected keyword arguments?:? [`']num_threshs[`']"):
        call(num_threshs=3)


def test_settings_after_the_bounds_are_by_keyword_only() -> None:
    """A third positional setting is an error, so that none is mistaken for another."""
    with pytest.raises(TypeError, match="positional argument"):
        AUPIMO(None, (1e-5, 1e-4), "mean")


def test_results_reject_what_is_not_known_or_no_map() -> None:
    """Thresholds are known for FPRs above 0 up to the upper bound; a map of contributions needs a floating map."""
    for fpr in (0.0, -0.1, 0.51, math.nan):
        with pytest.raises(ValueError, match=r"^Expected `fpr` to be in \(0, 0\.5\], but got"):
            RESULT.threshold_at(fpr)
    for anomaly_map, error, message in (
        (MASKS[0], TypeError, r"to be a floating point tensor, but got torch\.bool"),
        (MAPS[0].numpy(), TypeError, "to be a floating point tensor, but got ndarray"),
        (WITH_NAN[1], ValueError, "to hold no NaN"),
    ):
        with pytest.raises(error, match=f"^Expected `anomaly_map` {message}"):
            RESULT.pixel_aupimo(anomaly_map)
