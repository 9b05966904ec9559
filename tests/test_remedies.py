"""The advice of an error is right if it is followed to the letter: the code in the message gives the right score."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from helpers import assert_same, make_batch
from torch import Tensor

from aupimo_torchmetrics.functional import aupimo

BOUNDS = (5e-3, 5e-2)
MAPS, MASKS = make_batch("NANA", 0)
ROWS = torch.zeros_like(MASKS)
ROWS[:, :3] = True
"""Pixels without a label."""
SOFT = torch.where(MASKS, 0.75, torch.where(MASKS.roll(1, 2), 0.25, 0.0))
SOFT[1, 3:5] += 0.25 * MASKS[1, 3:5]
CLASSES = MASKS.long() * torch.tensor([1, 2, 3, 4])[:, None, None]
JPEG = MASKS.long() * 249 + torch.arange(40) % 7


def labelled(target: Tensor, value: float) -> Tensor:
    """The target with pixels that have no label, and this value in their place."""
    return target.masked_fill(ROWS, value)


def settings_of(message: str) -> tuple[int | None, list[str]]:
    """The setting that one sentence of a message advises, and its code."""
    index = re.search(r"`ignore_index=(-?\d+)`", message)
    code = [part for part in re.findall(r"`([^`]*)`", message) if part.startswith(("target", "torch.where"))]
    return (int(index[1]) if index else None), code


TARGETS: dict[str, tuple[Tensor, int | None, str, bool]] = {
    # the target, `ignore_index`, the part of the message to follow, whether the rows without labels are to be ignored
    "0 and 255": (MASKS.byte() * 255, None, r"The other value.*?(marks anomalous pixels[^;]*)", False),
    "0 and a fraction": (MASKS * 0.5, None, r"(marks anomalous pixels[^;.]*)", False),
    "0 and 1 / 255": (MASKS / 255, None, r"(marks anomalous pixels[^;.]*)", False),
    "0 and -1": (-MASKS.long(), None, r"(marks anomalous pixels[^;]*)", False),
    "-1 and 1": (MASKS.long() * 2 - 1, None, r"(marks normal pixels[^;]*)", False),
    "0, 1 and 255": (labelled(MASKS.byte(), 255), None, r"(marks unlabelled pixels[^;]*)\.$", True),
    "0, 1 and -1": (labelled(MASKS.long(), -1), None, r"(marks unlabelled pixels[^;]*)\.$", True),
    "0., 1. and 255.": (labelled(MASKS.float(), 255), None, r"(marks unlabelled pixels[^;]*)\.$", True),
    "0, 1 and 2": (MASKS.long() + (MASKS & MASKS.roll(2, 1)), None, r"(marks anomalous pixels[^;]*)", False),
    "0, 255 and 128": (labelled(MASKS.byte() * 255, 128), None, r"(If 128 marks.*?\(\)\)`)", True),
    "0, 2 and 255": (labelled(MASKS.byte() * 2, 255), None, r"(If 255 marks.*)\.$", True),
    "fractions": (SOFT, None, r"(or pass.*)\.$", False),
    "fractions that overshoot": (SOFT * 1.2 - 0.01, None, r"(or pass.*)\.$", False),
    "fractions of 255": (SOFT * 255, None, r"(for masks of 0 and 255.*)\.$", False),
    "fractions and 255": (labelled(SOFT, 255), None, r"(If 255 marks.*)\.$", True),
    "fractions beside the ignored value": (labelled(SOFT, 255), 255, r"(or pass.*)\.$", True),
    "classes": (CLASSES, None, r"(If all values.*?)`\. ", False),
    "classes and 255": (labelled(CLASSES, 255), None, r"(If 255 marks.*?\(\)\)`)", True),
    "classes and -1": (labelled(CLASSES, -1), None, r"(If -1 marks.*?\(\)\)`)", True),
    "classes beside the ignored value": (labelled(CLASSES, 255), 255, r"(If all values.*)\.$", True),
    "255 beside the ignored value": (labelled(MASKS * 255.0, -1), -1, r"(marks anomalous pixels[^;]*)\.$", True),
    "JPEG": (JPEG, None, r"(JPEG.*)\.$", False),
    "NaN": (labelled(MASKS.float(), torch.nan), None, r"(If NaN.*);", True),
    "NaN beside the ignored value": (labelled(MASKS.float(), torch.nan), -1, r"(If NaN.*);", True),
}


@pytest.mark.parametrize("as_list", [False, True])
@pytest.mark.parametrize(("target", "given", "part", "is_ignored"), TARGETS.values(), ids=TARGETS.keys())
def test_advice_on_targets(target: Tensor, given: int | None, part: str, is_ignored: bool, as_list: bool) -> None:
    """Whatever a target holds, the sentence that fits gives the score of the right masks."""
    images: list[Any] = [list(MAPS), list(target)] if as_list else [MAPS, target]
    with pytest.raises(
        ValueError, match=r"^Expected `target` to hold only 0 and 1.*, but got other values\. "
    ) as error:
        aupimo(*images, fpr_bounds=BOUNDS, ignore_index=given)
    advice = re.search(part + "|$", str(error.value))
    assert advice is not None
    assert advice[0], str(error.value)
    index, code = settings_of(advice[0])
    followed = eval(code[0], {"torch": torch, "target": target}) if code else target  # noqa: S307
    index = given if index is None else index
    actual = aupimo(MAPS, followed, fpr_bounds=BOUNDS, reduction="none", ignore_index=index)
    right = labelled(MASKS.long(), 255) if is_ignored else MASKS
    assert_same(actual, aupimo(MAPS, right, fpr_bounds=BOUNDS, reduction="none", ignore_index=255))
    assert actual.isfinite().any()


@pytest.mark.parametrize("scores", [MAPS, MAPS.sigmoid(), (MAPS.sigmoid() * 255).byte()], ids=["any", "unit", "bytes"])
def test_swapped_arguments_are_recognised(scores: Tensor) -> None:
    """Binary maps and masks of many values are called what they seem to be; masks of the wrong values are not."""
    with pytest.raises(ValueError, match="`target` many other values: the arguments seem to be swapped"):
        aupimo(MASKS.float(), scores)
    with pytest.raises(ValueError, match="swapped"):
        aupimo(list(MASKS.double()), list(scores))
    for target in (SOFT, CLASSES, labelled(SOFT, 255)):  # beside maps of a detector that finds nothing, or everything
        for maps in (torch.zeros_like(MAPS), MASKS.float()):
            with pytest.raises(ValueError, match=r"other values\. (?!.*swapped)"):
                aupimo(maps, target)


def _volumes() -> tuple[Tensor, Tensor]:
    """Maps and masks (N, D, H, W)."""
    pairs = [make_batch("NNAN" if index else "NNNN", index, (12, 16)) for index in (0, 1, 2)]
    return torch.stack([maps for maps, _ in pairs]), torch.stack([masks for _, masks in pairs])


def _followed(preds: Any, target: Any, part: str) -> Tensor:
    """Score after following the code of the message, for maps and for masks."""
    with pytest.raises(ValueError, match=r"^Expected ") as error:
        aupimo(preds, target)
    advice = re.search(part + "|$", str(error.value))
    assert advice is not None
    assert advice[0], str(error.value)
    code = dict(re.findall(r"`((preds|target)[^`]*)`", advice[0]))
    names = {"preds": preds, "target": target}
    arguments = {name: eval(text, names.copy()) for text, name in code.items()}  # noqa: S307
    return aupimo(**(names | arguments), fpr_bounds=BOUNDS, reduction="none")


def test_advice_on_volumes() -> None:
    """Volumes are images of more rows: in tensors of four and five axes, and in lists."""
    maps, masks = _volumes()
    expected = aupimo(maps.reshape(3, -1, 16), masks.reshape(3, -1, 16), fpr_bounds=BOUNDS, reduction="none")
    assert_same(_followed(maps, masks, r"For volumes[^;]*"), expected)
    assert_same(_followed(maps[:, None], masks[:, None], "For volumes.*"), expected)
    with pytest.raises(ValueError, match=r"a volume \(D, H, W\) as `map\.flatten\(0, 1\)`"):
        aupimo(list(maps), list(masks))
    flat = [[each.flatten(0, 1) for each in images] for images in (maps, masks)]
    assert_same(aupimo(*flat, fpr_bounds=BOUNDS, reduction="none"), expected)


def test_advice_on_channels() -> None:
    """Channels are the classes of a softmax, scores, defect classes or the last axis; each has its own advice."""
    expected = aupimo(MAPS, MASKS, fpr_bounds=BOUNDS, reduction="none")
    of_classes, scores = torch.stack([-MAPS, MAPS], 1), torch.stack([MAPS, MAPS - 1, MAPS - 2], 1)
    for target in (MASKS, MASKS[:, None]):
        assert_same(_followed(of_classes, target, "If the channels are the classes[^;]*"), expected)
        assert_same(_followed(scores[:, :2], target, "otherwise.*"), expected)
        assert_same(_followed(scores, target, "If each channel.*"), expected)
    defects = torch.stack([MASKS & (torch.arange(40) % 2 == 0), MASKS & (torch.arange(40) % 2 == 1)], 1)
    assert_same(_followed(scores[:, :2], defects, "for maps and masks of several.*"), expected)
    assert_same(_followed(MAPS[..., None], MASKS, "If the channel axis is the last.*"), expected)
