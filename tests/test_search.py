"""Search: what is found at or above a level is the same by blocks and pixel by pixel, whatever the sizes."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from aupimo_torchmetrics._engine.images import Group, as_groups
from aupimo_torchmetrics._engine.search import BLOCK_SIZE, BlockSearch, Found, FullSearch, highest_of_blocks
from helpers import make_images
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from aupimo_torchmetrics._engine import search
from aupimo_torchmetrics._engine.kept import num_true_by_words


def group_of(maps: Tensor, target: Tensor, ignore_index: int | None = None) -> Group:
    """Group of maps and target (n, H, W)."""
    (group,) = as_groups(maps, target, torch.float32, ignore_index)
    return group


def find(kind: type, group: Group, level: float) -> Found:
    """What a kind of search finds."""
    search = kind(group, torch.tensor(level))
    return search.find(int(search.num_normal_found))


def found_one_by_one(group: Group, level: float) -> dict[str, list[Any]]:
    """What is to be found, in Python numbers, image after image."""
    ignored = torch.zeros_like(group.masks) if group.ignored is None else group.ignored
    found: dict[str, list[Any]] = {"normal_scores": [], "mask_scores": [], "num_found": [], "mask_sizes": []}
    for scores, mask, drop in zip(group.maps.tolist(), (group.masks != 0).tolist(), ignored.tolist(), strict=True):
        searched = [
            score
            for score, is_masked, is_dropped in zip(scores, mask, drop, strict=True)
            if (is_masked or not any(mask)) and not is_dropped
        ]
        high = [score for score in searched if score >= level]
        found["mask_scores" if any(mask) else "normal_scores"] += high
        found["num_found"].append(len(high))
        found["mask_sizes"].append(sum(mask))
    return found


def assert_finds(found: Found, expected: dict[str, list[Any]]) -> None:
    """Assert that the same scores are found in the same order."""
    assert {name: values.tolist() for name, values in found._asdict().items()} == expected


@pytest.mark.parametrize("kind", [BlockSearch, FullSearch])
@pytest.mark.parametrize("share", [0.0, 0.25, 1.0], ids=lambda share: f"copied up to {share}")
@pytest.mark.parametrize("level", [-math.inf, -1.0, 0.5, 2.0, math.inf])
@pytest.mark.parametrize("size", [(1, 1), (1, 3), (8, 16), (9, 14), (1, 127), (1, 129), (16, 16), (31, 33), (64, 70)])
def test_finds_each_score_whatever_the_size(
    monkeypatch: pytest.MonkeyPatch, size: tuple[int, int], level: float, share: float, kind: type
) -> None:
    """Blocks that hold pixels of several images, and pixels that are in no block, make no difference."""
    monkeypatch.setattr(search, "_MAX_COPIED_SHARE", share)
    maps, masks = make_images(1, size=size)
    group = group_of(maps, masks)
    assert_finds(find(kind, group, level), found_one_by_one(group, level))


@pytest.mark.parametrize("kind", [BlockSearch, FullSearch])
@pytest.mark.parametrize("share", [0.0, 1.0])
@pytest.mark.parametrize("size", [(5, 7), (16, 16), (31, 33)])
def test_ignored_pixels_are_not_found(
    monkeypatch: pytest.MonkeyPatch, size: tuple[int, int], share: float, kind: type
) -> None:
    """An ignored pixel is found in no image, and hides no other score of its block, even if its own is NaN."""
    monkeypatch.setattr(search, "_MAX_COPIED_SHARE", share)
    maps, masks = make_images(2, size=size)
    target = masks.to(torch.uint8)
    target[:, -1] = 255
    maps[:, -1] = torch.tensor([math.inf, math.nan, 9.0, -math.inf, 0.0])[: len(maps), None]
    group = group_of(maps, target, 255)
    assert_finds(find(kind, group, 0.25), found_one_by_one(group, 0.25))


@pytest.mark.parametrize("kind", [BlockSearch, FullSearch])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("size", [(1, 5), (16, 16), (31, 33)])
def test_nan_anywhere_is_noticed(size: tuple[int, int], dtype: torch.dtype, kind: type) -> None:
    """A NaN of either sign is noticed in blocks and in the pixels that are in none."""
    num_pixels = 3 * size[0] * size[1]
    for sign in (1.0, -1.0):
        for place in (0, num_pixels // 2, num_pixels - 1):
            maps = torch.zeros(3, *size, dtype=dtype)
            assert not kind(group_of(maps, torch.zeros_like(maps)), torch.tensor(0.0)).has_nan
            maps.view(-1)[place] = math.copysign(math.nan, sign)
            assert kind(group_of(maps, torch.zeros_like(maps)), torch.tensor(0.0)).has_nan


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_highest_scores_of_blocks(dtype: torch.dtype) -> None:
    """Maxima are those of the numbers in each precision: of either sign, of zeros with a sign, and of infinities."""
    blocks = torch.randn(24, BLOCK_SIZE, generator=torch.Generator().manual_seed(0)).to(dtype)
    blocks[:6] = -blocks[:6].abs()
    blocks[6:12, 3] = -math.inf
    blocks[12] = -math.inf
    blocks[13] = -1
    blocks[13, 5] = -0.0
    blocks[14, 5] = math.inf
    assert torch.equal(highest_of_blocks(blocks.view(4, -1)), blocks.amax(1))


def test_normal_images_in_blocks_of_others_are_found() -> None:
    """Where a block holds the end of an anomalous image and the begin of a normal one, only the latter is normal."""
    maps = torch.arange(3 * 150.0).view(3, 10, 15)
    masks = torch.zeros(3, 10, 15, dtype=torch.bool)
    masks[1, 0, 0] = True
    found = find(BlockSearch, group_of(maps, masks), 140.0)
    assert found.normal_scores.tolist() == [*range(140, 150), *range(300, 450)]
    assert found.mask_scores.tolist() == [150.0]


@pytest.mark.parametrize("num_flags", [8, 1000, 1024, 8 * 251, 8 * 255, 8 * 509, 8 * 510])
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_true_flags_are_counted_by_words(num_flags: int, share: float) -> None:
    """Eight flags are counted at once, and no byte of a sum overflows even if all flags are true."""
    flags = torch.rand(3, num_flags, generator=torch.Generator().manual_seed(0)) < share
    assert torch.equal(num_true_by_words(flags), flags.sum(1))


class Operations(TorchDispatchMode):
    """Counts the operations of torch, and how often the host would wait for a device."""

    num_operations = num_waits = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation, and count it."""
        self.num_operations += 1
        self.num_waits += func.overloadpacket.__name__ in {"nonzero", "_local_scalar_dense", "masked_select", "item"}
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("classes", [(0, 1, 2, 3), (), (1, 3)])
def test_device_is_waited_for_twice(classes: tuple[int, ...]) -> None:
    """On another device a search waits twice and needs few operations, whatever the classes and number of images."""
    counted = []
    for repeats in (1, 20):
        maps, masks = make_images(3, size=(31, 33))
        masks[:] = False
        masks[list(classes), 4:6, 4:9] = True
        group = group_of(maps.repeat(repeats, 1, 1), masks.repeat(repeats, 1, 1))
        with Operations() as operations:
            find(FullSearch, group, 0.5)
        counted.append((operations.num_waits, operations.num_operations))
    assert counted[0] == counted[1]
    assert counted[0][0] == 2
    assert counted[0][1] <= 32
