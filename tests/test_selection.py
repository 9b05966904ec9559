"""Selection: what is kept of a batch is what scores can depend on, whatever its layout, dtype or size."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from aupimo_torchmetrics._engine.checks import Maps
from aupimo_torchmetrics._engine.search import FullSearch
from helpers import keep, make_image_list, make_images, score
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from aupimo_torchmetrics import AUPIMO
from aupimo_torchmetrics._engine import images as groups
from aupimo_torchmetrics._engine import selection
from aupimo_torchmetrics._engine.kept import NO_ID, PixelScores, join_scores, prune_scores, required_capacity

LARGE = (161, 163)
"""Size of images of which four are more than the sample that a floor is chosen by, with an odd number of pixels."""


def assert_keeps_exactly(kept: PixelScores, preds: Maps, target: Maps, floor: float = -math.inf) -> None:
    """Assert that of each image the pixels at or above the floor are kept, of an anomalous one those in its mask."""
    normal, masked, num_kept, num_pixels, is_anomalous, normal_min = [], [], [], [], [], math.inf
    for anomaly_map, mask in zip(preds, target, strict=True):
        flat, in_mask = anomaly_map.reshape(-1).to(kept.floor.dtype).tolist(), mask.reshape(-1).bool().tolist()
        if any(in_mask):
            of_image = [pixel for pixel, is_in_mask in zip(flat, in_mask, strict=True) if is_in_mask and pixel >= floor]
            masked += of_image
        else:
            of_image = [pixel for pixel in flat if pixel >= floor]
            normal += of_image
            normal_min = min([normal_min, *flat])
        num_kept.append(len(of_image))
        num_pixels.append(sum(in_mask) or len(flat))
        is_anomalous.append(any(in_mask))
    assert kept.normal_scores.tolist() == normal
    assert kept.mask_scores.tolist() == masked
    assert kept.num_kept.tolist() == num_kept
    assert kept.num_pixels.tolist() == num_pixels
    assert kept.is_anomalous.tolist() == is_anomalous
    assert kept.image_ids.tolist() == [NO_ID] * len(num_kept)
    assert float(kept.normal_min) == normal_min


def normal_scores(kept: PixelScores) -> Tensor:
    """Kept scores of normal images."""
    return kept.normal_scores


@pytest.mark.parametrize("floor", [-math.inf, -0.25, 0.0, 1.0, 2.5, 1e9, math.inf])
@pytest.mark.parametrize("decimals", [None, 0])
@pytest.mark.parametrize("size", [(1, 1), (1, 7), (3, 3), (8, 8), (5, 16), (13, 11), (64, 64), (37, 41), (1, 131)])
def test_keeps_mask_pixels_and_normal_pixels_at_or_above_the_floor(
    size: tuple[int, int], decimals: int | None, floor: float
) -> None:
    """Nothing else is kept, and nothing of it is lost, whatever the blocks are that pixels are searched in."""
    maps, masks = make_images(0, size=size, decimals=decimals)
    assert_keeps_exactly(keep(maps, masks, floor=floor), maps, masks, floor)


@pytest.mark.parametrize("floor", [-math.inf, 0.5])
def test_keeps_the_same_of_a_list_of_any_sizes(floor: float) -> None:
    """A list may mix sizes, among them images of one pixel."""
    maps, masks = make_image_list(1, sizes=[(4, 4), (7, 3), (1, 1), (1, 1), (16, 8), (5, 1)], anomalous=(1, 3))
    assert_keeps_exactly(keep(maps, masks, floor=floor), maps, masks, floor)


@pytest.mark.parametrize(
    "classes",
    [(), (0,), (4,), (0, 1, 2, 3, 4)],
    ids=["all normal", "first anomalous", "last anomalous", "all anomalous"],
)
def test_keeps_the_same_whatever_the_classes(classes: tuple[int, ...]) -> None:
    """A batch may lack a class, and the class of one image does not leak into its neighbours."""
    maps, masks = make_images(2, anomalous=classes)
    assert_keeps_exactly(keep(maps, masks, floor=0.0), maps, masks, 0.0)


def test_single_mask_pixel_anywhere_makes_an_image_anomalous() -> None:
    """One mask pixel is enough, wherever it lies."""
    maps = torch.arange(24 * 24.0).view(24, 4, 6)
    masks = torch.eye(24, dtype=torch.bool).view(24, 4, 6)
    assert_keeps_exactly(keep(maps, masks), maps, masks)


def _layouts(images: Tensor) -> dict[str, Tensor]:
    """The same images (N, H, W) or (N, 1, H, W) in every layout of memory that a caller may have."""
    num_images, height, width = images.shape
    wide = images.new_zeros(num_images, height + 2, width + 3)
    wide[:, 1:-1, 2:-1] = images
    at_odd_offset = images.new_zeros(images.numel() + 1)[1:].view(images.shape)
    at_odd_offset.copy_(images)
    return {
        "transposed": images.mT.contiguous().mT,
        "images last": images.permute(1, 2, 0).contiguous().permute(2, 0, 1),
        "cropped": wide[:, 1:-1, 2:-1],
        "every other": images.repeat_interleave(2, 0)[::2],
        "at an odd offset": at_odd_offset,
        "with channel": images[:, None],
        "channels last": images[:, None].contiguous(memory_format=torch.channels_last),
        "one of three channels": torch.stack([images] * 3, 1)[:, 1:2],
        "with gradient": images.clone().requires_grad_() if images.is_floating_point() else images,
        "as parameter": torch.nn.Parameter(images.clone(), requires_grad=False),
    }


@pytest.mark.parametrize("layout", _layouts(torch.zeros(1, 1, 1)))
@pytest.mark.parametrize("size", [(8, 8), (7, 5)])
def test_layout_of_memory_does_not_matter(layout: str, size: tuple[int, int]) -> None:
    """Views, strides and offsets of maps and masks change nothing, and the kept scores have no gradient."""
    maps, masks = make_images(3, size=size)
    kept = keep(_layouts(maps)[layout], _layouts(masks)[layout], floor=0.0)
    assert_keeps_exactly(kept, maps, masks, 0.0)
    assert not kept.normal_scores.requires_grad


@pytest.mark.parametrize("first", [1, 2, 3])
@pytest.mark.parametrize("size", [(8, 8), (3, 5), (2, 4), (1, 1)])
def test_batches_may_be_slices(size: tuple[int, int], first: int) -> None:
    """A slice, whose memory starts anywhere in a machine word, is kept like a batch of its own."""
    maps, masks = make_images(4, size=size)
    assert_keeps_exactly(keep(maps[first:], masks[first:], floor=0.0), maps[first:], masks[first:], 0.0)


def test_expanded_maps_and_masks() -> None:
    """One map and one mask may stand for several images, without memory of their own."""
    maps, masks = make_images(5)
    expanded = maps[:1].expand(3, -1, -1), masks[1:2].expand(3, -1, -1)
    assert_keeps_exactly(keep(*expanded), *expanded)


@pytest.mark.parametrize(
    "dtype",
    [
        torch.bool,
        torch.uint8,
        torch.uint16,
        torch.uint32,
        torch.uint64,
        torch.int8,
        torch.int16,
        torch.int32,
        torch.int64,
        torch.float16,
        torch.bfloat16,
        torch.float32,
        torch.float64,
    ],
)
def test_dtype_of_masks_does_not_matter(dtype: torch.dtype) -> None:
    """Masks of 0 and 1 are the same masks in every dtype."""
    maps, masks = make_images(6)
    assert_keeps_exactly(keep(maps, masks.to(dtype), floor=0.0), maps, masks, 0.0)


def test_bool_masks_may_have_any_bit_set() -> None:
    """Bytes of 0 and 255 that are viewed as bool are the masks that they look like."""
    maps, masks = make_images(6)
    assert_keeps_exactly(keep(maps, (masks.byte() * 255).view(torch.bool), floor=0.0), maps, masks, 0.0)


def test_masks_may_hold_negative_zero() -> None:
    """A floating mask whose zeros are negative is empty."""
    maps, _ = make_images(6)
    assert not keep(maps, torch.full_like(maps, -0.0)).is_anomalous.any()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize(
    "floor",
    # Between two numbers of a half dtype, beyond the largest, below the smallest, and on a number.
    [0.1, -0.1, 0.100006103515625, 1000.3, -1000.3, 65519.0, 65521.0, -65521.0, 1e30, -1e30, 3e-8, -3e-8, 1e-42, 0.5],
)
def test_floor_between_two_numbers_of_a_coarser_dtype_loses_nothing(floor: float, dtype: torch.dtype) -> None:
    """Of maps in half precision every normal pixel at or above a float32 floor is kept, and little below it."""
    floor = float(torch.tensor(floor, dtype=torch.float32))
    magnitudes = torch.tensor([0.0, 1e-42, 3e-8, 6e-8, 0.0999, 0.1, 0.1001, 0.5, 1000, 1000.5, 65504, 1e30, math.inf])
    maps = torch.cat([-magnitudes, magnitudes]).to(dtype)[None, None]
    kept = keep(maps, torch.zeros_like(maps), floor=floor, dtype=torch.float32)
    expected = maps.float()[maps.float() >= floor]
    actual = kept.normal_scores[kept.normal_scores >= floor]
    assert sorted(actual.tolist()) == sorted(expected.tolist())
    # The level may be rounded down by two steps of the maps' dtype, and by its smallest number, even to -inf.
    slack = 2 * abs(floor) * torch.finfo(dtype).eps + 2 * torch.finfo(dtype).tiny
    assert bool((kept.normal_scores[kept.normal_scores > -math.inf] >= floor - slack).all())


def test_float64_maps_are_rounded_before_they_meet_the_floor() -> None:
    """A float64 score that float32 rounds up to the floor is at the floor."""
    maps = torch.tensor([[[1 - 1e-12, 1 - 1e-6, 1 + 1e-12, 2.0]]], dtype=torch.float64)
    kept = keep(maps, torch.zeros_like(maps), floor=1.0, dtype=torch.float32)
    assert kept.normal_scores.tolist() == [1.0, 1.0, 2.0]


@pytest.mark.filterwarnings("ignore:AUPIMO is uncertain:UserWarning")
@pytest.mark.parametrize("first", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("second", [torch.float32, torch.float16, torch.bfloat16])
def test_dtypes_may_change_between_updates(first: torch.dtype, second: torch.dtype) -> None:
    """A floor from maps of one dtype is right for maps of another: scores equal those of all maps in float32."""
    bounds = (1e-3, 1e-2)
    batches = [(maps.to(dtype), masks) for dtype in (first, second) for maps, masks in [make_images(7, 4, LARGE)]]
    metric = AUPIMO(fpr_bounds=bounds, normal_buffer=500)
    for maps, masks in batches:
        metric.update(maps, masks)
    assert float(metric.aupimo_floor) > -math.inf
    expected = score(
        torch.cat([maps.float() for maps, _ in batches]), torch.cat([masks for _, masks in batches]), bounds
    )
    # The table has the same levels from the highest down, so only the order of sums differs: 1e-12.
    torch.testing.assert_close(metric.result().aupimos, expected.aupimos, rtol=0.0, atol=1e-12, equal_nan=True)


@pytest.mark.parametrize("decimals", [None, 1])
@pytest.mark.parametrize(
    ("normal_buffer", "upper_fpr"), [(1, 1e-6), (50, 1e-6), (1000, 1e-6), (50, 2e-3), (12_000, 1e-6)]
)
def test_new_floor_keeps_enough_of_a_large_batch(normal_buffer: int, upper_fpr: float, decimals: int | None) -> None:
    """The floor that a sample suggests leaves at least the capacity above it, and all that lies above it is kept."""
    maps, masks = make_images(8, 4, LARGE, decimals=decimals)
    capacity = max(normal_buffer, math.ceil(10 * upper_fpr * maps.numel()))
    kept = keep(maps, masks, normal_buffer=normal_buffer, upper_fpr=upper_fpr)
    assert float(kept.floor) > -math.inf
    assert len(normal_scores(kept)) >= capacity
    assert_keeps_exactly(kept, maps, masks, float(kept.floor))
    if decimals is None:  # four standard deviations of the sample above what is needed, and as many of its noise
        noise = 4 * math.sqrt(capacity * maps.numel() / selection._SAMPLE_SIZE)
        assert len(normal_scores(kept)) < capacity + 3 * noise + 100


@pytest.mark.parametrize("is_list", [False, True])
@pytest.mark.parametrize("normal_buffer", [10, 500, 12_000, None])
@pytest.mark.parametrize("floor", [-math.inf, 1.0])
def test_keeps_the_same_on_every_device(
    monkeypatch: pytest.MonkeyPatch, floor: float, normal_buffer: int | None, is_list: bool
) -> None:
    """What is kept, and the floor that is chosen, do not depend on how a device searches."""
    maps, masks = make_images(8, 4, LARGE)
    preds, target = ([*maps], [*masks]) if is_list else (maps, masks)
    expected = keep(preds, target, floor=floor, normal_buffer=normal_buffer, upper_fpr=1e-6)
    monkeypatch.setattr(selection, "search_of", FullSearch)
    kept = keep(preds, target, floor=floor, normal_buffer=normal_buffer, upper_fpr=1e-6)
    torch.testing.assert_close(kept, expected, rtol=0, atol=0)


def test_batch_within_twice_the_capacity_is_kept_whole() -> None:
    """A floor is chosen only where it spares at least half of a batch."""
    maps, masks = make_images(9)
    for capacity in (maps.numel() // 2, 10 * maps.numel()):
        kept = keep(maps, masks, normal_buffer=capacity, upper_fpr=1e-6)
        assert_keeps_exactly(kept, maps, masks)
        assert float(kept.floor) == -math.inf


def test_no_buffer_keeps_every_normal_pixel() -> None:
    """Without a buffer no floor is chosen, however large a batch."""
    maps, masks = make_images(9, 4, LARGE)
    kept = keep(maps, masks, normal_buffer=None, upper_fpr=1e-6)
    assert len(normal_scores(kept)) == int((masks.sum((1, 2)) == 0).sum()) * maps[0].numel()
    assert float(kept.floor) == -math.inf


def test_given_floor_is_used_and_not_raised() -> None:
    """A floor that is given is used, and no new one is chosen."""
    maps, masks = make_images(9, 4, LARGE)
    kept = keep(maps, masks, floor=2.0, normal_buffer=10, upper_fpr=1e-6)
    assert_keeps_exactly(kept, maps, masks, 2.0)
    assert float(kept.floor) == 2.0


@pytest.mark.parametrize("capacity", [200, 12_000])
def test_misleading_sample_sets_no_wrong_floor(capacity: int) -> None:
    """If the sampled pixels happen to be the bright ones, no floor is set that would leave too few pixels above it."""
    maps = torch.rand(4, *LARGE, generator=torch.Generator().manual_seed(10))
    stride = maps.numel() // selection._SAMPLE_SIZE | 1
    assert stride > 1, "The batch must be larger than the sample."
    maps.view(4, -1)[:, ::stride] += 10.0
    kept = keep(maps, torch.zeros_like(maps), normal_buffer=capacity, upper_fpr=1e-6, dtype=torch.float32)
    assert len(kept.normal_scores) >= capacity
    assert_keeps_exactly(kept, maps, torch.zeros_like(maps), float(kept.floor))


def test_sample_that_misses_the_bright_pixels_does_no_harm() -> None:
    """If no sampled pixel is among the bright ones, more is kept, never less."""
    maps = torch.rand(4, *LARGE, generator=torch.Generator().manual_seed(11))
    stride = maps.numel() // selection._SAMPLE_SIZE | 1
    maps.view(4, -1)[:, 1::stride] += 10.0
    kept = keep(maps, torch.zeros_like(maps), normal_buffer=200, upper_fpr=1e-6, dtype=torch.float32)
    assert_keeps_exactly(kept, maps, torch.zeros_like(maps), float(kept.floor))


@pytest.mark.parametrize("seed", range(6))
def test_sample_of_smooth_maps_spares_memory(seed: int) -> None:
    """A floor is found for smooth maps too, whose peaks lie close together, though a row is as long as the stride."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(128, 1, 16, 4, generator=generator)
    maps = torch.nn.functional.interpolate(coarse, size=(256, 64), mode="bilinear")[:, 0].exp()
    masks = torch.zeros(maps.shape, dtype=torch.bool)
    kept = keep(maps, masks, normal_buffer=1000, upper_fpr=1e-4, dtype=torch.float32)
    capacity = required_capacity(128, 256 * 64, 1000, 1e-4)
    assert capacity <= len(kept.normal_scores) <= 4 * capacity


class PixelsSearchedAtOnce(TorchDispatchMode):
    """Notes the largest tensor in which torch was asked to search for a maximum, a minimum or true pixels."""

    largest = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation, and note the size of its first argument if it searches."""
        if func.overloadpacket.__name__ in {"amax", "amin", "nonzero"}:
            self.largest = max(self.largest, args[0].numel())
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(("max_pixels", "images_at_once"), [(1, 1), (240, 2), (300, 2), (2**30, 5)])
def test_huge_batches_are_searched_in_parts(
    monkeypatch: pytest.MonkeyPatch, max_pixels: int, images_at_once: int
) -> None:
    """However few images are searched at once, what is kept is the same. A single image is not divided."""
    preds, target = make_images(0)
    expected = keep(preds, target, floor=0.5)
    monkeypatch.setattr(groups, "_MAX_GROUP_PIXELS", max_pixels)
    with PixelsSearchedAtOnce() as searched:
        kept = keep(preds, target, floor=0.5)
    torch.testing.assert_close(kept, expected, rtol=0, atol=0)
    assert searched.largest == images_at_once * preds[0].numel()


@pytest.mark.parametrize("value", [0.0, -math.inf, math.inf])
def test_constant_batch_is_kept_whole(value: float) -> None:
    """All pixels of a constant batch are at its highest level, so none may be dropped."""
    maps = torch.full((4, *LARGE), value)
    kept = keep(maps, torch.zeros_like(maps), normal_buffer=10, upper_fpr=1e-6)
    assert len(kept.normal_scores) == maps.numel()


def test_few_normal_pixels_in_a_large_batch_set_no_floor() -> None:
    """A batch with fewer normal pixels than the capacity keeps them all, for darker ones that may still come."""
    maps, masks = make_image_list(12, sizes=[LARGE] * 4 + [(3, 3)], anomalous=(0, 1, 2, 3))
    for images in ((maps, masks), (maps[::-1], masks[::-1])):
        kept = keep(*images, normal_buffer=10, upper_fpr=1e-6)
        assert len(normal_scores(kept)) == 9
        assert float(kept.floor) == -math.inf


def test_list_is_kept_above_the_floor_of_its_first_large_images() -> None:
    """A floor that is chosen within a list is used for the whole list, and at least the buffer is kept."""
    maps, masks = make_image_list(13, sizes=[(9, 7), LARGE, (60, 50), LARGE, (4, 4)], anomalous=(3,))
    kept = keep(maps, masks, normal_buffer=500, upper_fpr=1e-6)
    floor = float(kept.floor)
    assert floor > -math.inf
    expected = torch.cat([each[each >= floor] for each, mask in zip(maps, masks, strict=True) if not mask.any()])
    kept_above = normal_scores(kept)[normal_scores(kept) >= floor]
    assert kept_above.tolist() == expected.tolist()
    assert len(kept_above) >= 500


@pytest.mark.parametrize(
    "image_ids",
    [
        [5, 0, 7, 7, 2**62],
        (1, 2, 3, 4, 5),
        [torch.tensor(number) for number in range(5)],
        torch.arange(5, dtype=torch.int16),
        torch.arange(5).to(torch.uint64),
        np.arange(5, dtype=np.int32),
    ],
    ids=["list", "tuple", "list of tensors", "int16", "uint64", "array"],
)
def test_image_ids_are_kept_with_their_images(image_ids: Any) -> None:
    """Ids may be lists, tuples, arrays or tensors of integers of any size."""
    maps, masks = make_images(0)
    floor = torch.tensor(-math.inf)
    kept = selection.keep_scores(
        maps, masks, image_ids, floor=floor, normal_buffer=None, upper_fpr=1.0, validate_args=True
    )
    assert kept.image_ids.tolist() == [int(number) for number in image_ids]
    assert kept.image_ids.dtype == torch.int64


@pytest.mark.parametrize("images", [([], []), (torch.zeros(0, 4, 4), torch.zeros(0, 4, 4))], ids=["list", "tensor"])
def test_batch_without_images_keeps_nothing(images: tuple[Maps, Maps]) -> None:
    """An empty batch is no error: the last batch of a data loader may be empty."""
    kept = keep(*images, dtype=torch.float32)
    dtypes = [torch.float32, torch.float32, torch.int64, torch.int64, torch.bool, torch.int64]
    assert [len(part) for part in kept[:6]] == [0] * 6
    assert [part.dtype for part in kept[:6]] == dtypes


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_kept_scores_share_no_memory_with_the_maps(dtype: torch.dtype) -> None:
    """A caller may reuse the memory of a batch."""
    maps, masks = make_images(0)
    maps, masks = maps.to(dtype), masks.clone()
    kept = keep(maps, masks, dtype=dtype)
    expected = [part.clone() for part in kept]
    maps.fill_(7.0)
    masks.fill_(True)
    assert all(torch.equal(part, before) for part, before in zip(kept, expected, strict=True))


@pytest.mark.parametrize("decimals", [None, 1])
@pytest.mark.parametrize(("normal_buffer", "upper_fpr"), [(1, 1e-6), (30, 1e-6), (1, 0.02), (10_000, 1e-6)])
def test_pruning_keeps_the_highest_scores(normal_buffer: int, upper_fpr: float, decimals: int | None) -> None:
    """Pruning drops only scores below the new floor, and keeps at least the capacity of normal ones."""
    maps, masks = make_image_list(14, decimals=decimals)
    before = keep(maps, masks)
    after = prune_scores(before, normal_buffer, upper_fpr)
    num_normal = [mask.numel() for mask in masks if not mask.any()]
    capacity = max(normal_buffer, math.ceil(10 * upper_fpr * len(num_normal) * max(num_normal)))
    assert len(normal_scores(after)) >= min(capacity, sum(num_normal))
    assert_keeps_exactly(after, maps, masks, float(after.floor))
    if decimals is None:
        assert len(normal_scores(after)) == min(capacity, sum(num_normal))


def test_pruning_never_lowers_the_floor() -> None:
    """A floor that one batch came with stays. Scores below it may be dropped, as not all of them are known."""
    maps, masks = make_images(15)
    kept = join_scores([keep(maps, masks, floor=1.0), keep(maps, masks)])
    pruned = prune_scores(kept, 200, 1e-6)
    assert float(pruned.floor) >= 1.0
    highest = torch.cat([maps[[0, 2, 4]]] * 2).flatten()
    assert sorted(normal_scores(pruned).tolist()) == sorted(highest[highest >= pruned.floor].tolist())


@pytest.mark.parametrize("anomalous", [(), (0, 1, 2, 3, 4)], ids=["no anomalous image", "no normal image"])
def test_pruning_with_one_class_only(anomalous: tuple[int, ...]) -> None:
    """Pruning works without anomalous images, and without normal ones."""
    maps, masks = make_images(16, anomalous=anomalous)
    pruned = prune_scores(keep(maps, masks), 10, 1e-6)
    assert_keeps_exactly(pruned, maps, masks, float(pruned.floor))
