"""What is kept of a batch is what scores can depend on, whatever its layout, dtype, size and device."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from helpers import Operations, assert_same, keep, make_image_list, make_images, score, states_of
from torch import Tensor

from aupimo_torchmetrics import AUPIMO
from aupimo_torchmetrics._engine import select

LARGE = (161, 163)
"""Size of images of which four are more than the sample that a floor is chosen by, with an odd number of pixels."""


def joined(metric: AUPIMO) -> dict[str, list[Any]]:
    """States of what is kept, as numbers."""
    return {name: torch.cat(parts).tolist() for name, parts in states_of(metric).items() if parts[0].ndim}


def assert_keeps_exactly(metric: AUPIMO, preds: Any, target: Any, ignored: float = math.nan) -> None:
    """Assert that of each image the pixels at or above the floor are kept, of an anomalous one those in its mask."""
    names = ("normal_scores", "mask_scores", "num_kept", "num_pixels", "is_anomalous")
    floor, expected = float(metric.aupimo_floor), {f"aupimo_{name}": [] for name in names}
    for anomaly_map, mask in zip(preds, target, strict=True):
        labels = mask.reshape(-1).double().tolist()
        pixels = list(zip(anomaly_map.reshape(-1).float().tolist(), labels, strict=True))
        is_anomalous = 1 in labels
        counted = [pixel for pixel, label in pixels if label == 1 or (not is_anomalous and label != ignored)]
        high = [pixel for pixel in counted if pixel >= floor]
        expected["aupimo_mask_scores" if is_anomalous else "aupimo_normal_scores"] += high
        expected["aupimo_num_kept"].append(len(high))
        expected["aupimo_num_pixels"].append(len(counted))
        expected["aupimo_is_anomalous"].append(is_anomalous)
    kept = joined(metric)
    assert {name: kept[name] for name in expected} == expected


@pytest.fixture(params=["blocks", "pixel by pixel"])
def _search(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Search as on the CPU, and as on another device, there also in parts of few images."""
    if request.param == "pixel by pixel":
        monkeypatch.setattr(select, "search_of", select.PixelSearch)
        monkeypatch.setattr(select, "_MAX_GROUP_PIXELS", 300)


@pytest.mark.usefixtures("_search")
@pytest.mark.parametrize(
    ("floor", "decimals"), [(-math.inf, 0), (-0.25, None), (0.0, 0), (2.5, None), (1e9, 0), (math.inf, None)]
)
@pytest.mark.parametrize("size", [(1, 1), (1, 7), (8, 16), (13, 11), (32, 32), (37, 41), (1, 127), (1, 129)])
def test_keeps_mask_pixels_and_normal_pixels_above(size: tuple[int, int], decimals: Any, floor: float) -> None:
    """Of those at or above the floor none is lost, and nothing else is kept, whatever the blocks of the search are."""
    pixel_by_pixel = torch.arange(24 * 24.0).view(24, 4, 6), torch.eye(24, dtype=torch.bool).view(24, 4, 6)
    assert_keeps_exactly(keep(*pixel_by_pixel, floor=floor), *pixel_by_pixel)  # one mask pixel anywhere is a mask
    for anomalous in ((1, 3), (), (0,), (4,), (0, 1, 2, 3, 4)):
        maps, masks = make_images(0, size=size, decimals=decimals, anomalous=anomalous)
        for first in (0, 1):  # a slice, whose memory starts anywhere in a machine word
            assert_keeps_exactly(keep(maps[first:], masks[first:], floor=floor), maps[first:], masks[first:])
    sizes = [size, (4, 4), (1, 1), (16, 8), size]
    images = make_image_list(1, sizes, anomalous=(1, 3))
    assert_keeps_exactly(keep(*images, floor=floor), *images)


@pytest.mark.usefixtures("_search")
@pytest.mark.parametrize("size", [(5, 7), (16, 16), (31, 33)])
def test_ignored_pixels_are_not_found(size: tuple[int, int]) -> None:
    """An ignored pixel is found in no image, and hides no other score of its block, even if its own is NaN."""
    maps, masks = make_images(2, size=size)
    target = masks.to(torch.uint8)
    target[:, -1] = 255
    maps[:, -1] = torch.tensor([math.inf, math.nan, 9.0, -math.inf, 0.0])[:, None]
    for floor in (0.25, 2.0):
        metric = keep(maps, target, floor=floor, ignore_index=255, validate_args=False)
        assert_keeps_exactly(metric, maps, target, ignored=255)


@pytest.mark.usefixtures("_search")
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("size", [(1, 5), (16, 16), (31, 33)])
def test_nan_anywhere_is_noticed(size: tuple[int, int], dtype: torch.dtype) -> None:
    """A NaN of either sign is noticed in blocks and in the pixels that are in none."""
    num_pixels = 3 * size[0] * size[1]
    for sign in (1.0, -1.0):
        for place in (0, num_pixels // 2, num_pixels - 1):
            maps = torch.zeros(3, *size, dtype=dtype)
            keep(maps, torch.zeros_like(maps))
            maps.view(-1)[place] = math.copysign(math.nan, sign)
            with pytest.raises(ValueError, match="NaN in 1 of the maps"):
                keep(maps, torch.zeros_like(maps))


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
    metric = keep(_layouts(maps)[layout], _layouts(masks)[layout], floor=0.0)
    assert_keeps_exactly(metric, maps, masks)
    assert not metric.aupimo_normal_scores[0].requires_grad
    expanded = maps[:1].expand(3, -1, -1), masks[1:2].expand(3, -1, -1)  # without memory of their own
    assert_keeps_exactly(keep(*expanded), *expanded)


INTEGERS = [torch.uint8, torch.uint16, torch.uint32, torch.uint64, torch.int8, torch.int16, torch.int32, torch.int64]


def test_dtype_of_masks_does_not_matter() -> None:
    """Masks are the same in every dtype, and as bytes of 0 and 255 viewed as bool; negative zeros are empty."""
    maps, masks = make_images(6)
    for dtype in (torch.bool, *INTEGERS, torch.float16, torch.bfloat16, torch.float32, torch.float64):
        assert_keeps_exactly(keep(maps, masks.to(dtype), floor=0.0), maps, masks)
    assert_keeps_exactly(keep(maps, (masks.byte() * 255).view(torch.bool), floor=0.0), maps, masks)
    assert_keeps_exactly(keep(maps, torch.full_like(maps, -0.0)), maps, masks & False)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize(
    # between two numbers of a half dtype, beyond the largest, below the smallest, and on a number
    "floor",
    [0.1, -0.1, 0.100006103515625, 1000.3, -1000.3, 65519.0, 65521.0, -65521.0, 1e30, -1e30, 3e-8, -3e-8, 1e-42, 0.5],
)
def test_floor_between_two_numbers_of_a_coarser_dtype_loses_nothing(floor: float, dtype: torch.dtype) -> None:
    """Of maps in any precision exactly the normal pixels at or above a float32 floor are kept."""
    magnitudes = [0.0, 1e-42, 3e-8, 6e-8, 0.0999, 0.1, 0.1001, 0.5, 1000, 1000.5, 65504, 1e30, math.inf]
    # a float64 score is rounded before it meets the floor: some of these are rounded up to it
    around_floor = [floor * factor for factor in (1 - 1e-6, 1 - 1e-12, 1 + 1e-12)]
    scores = torch.tensor([*around_floor, *magnitudes, *(-each for each in magnitudes)], dtype=torch.float64)
    maps = scores.to(dtype)[None, None]
    for repeats in (1, 40):  # few pixels, and blocks of them
        each = maps.repeat(1, repeats, 1)
        assert_keeps_exactly(keep(each, torch.zeros_like(each), floor=floor), each, torch.zeros_like(each))


@pytest.mark.parametrize("first", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("second", [torch.float32, torch.float16, torch.bfloat16])
def test_dtypes_may_change_between_updates(first: torch.dtype, second: torch.dtype) -> None:
    """A floor from maps of one dtype is right for maps of another: scores equal those of all maps in float32."""
    batches = [(maps.to(dtype), masks) for dtype in (first, second) for maps, masks in [make_images(7, 4, LARGE)]]
    metric = AUPIMO(fpr_bounds=(1e-3, 1e-2), normal_buffer=500)
    for maps, masks in batches:
        metric.update(maps, masks)
    assert float(metric.aupimo_floor) > -math.inf
    maps, masks = (torch.cat([each[i].float() for each in batches]) for i in (0, 1))
    assert_same(metric.result().aupimos, score(maps, masks, (1e-3, 1e-2)).aupimos, atol=1e-12)  # order of sums


@pytest.mark.usefixtures("_search")
@pytest.mark.parametrize("decimals", [None, 1])
@pytest.mark.parametrize(("normal_buffer", "upper_fpr"), [(1, 1e-6), (1000, 1e-6), (50, 2e-3), (12_000, 1e-6)])
def test_new_floor_keeps_enough_of_a_large_batch(normal_buffer: int, upper_fpr: float, decimals: int | None) -> None:
    """A large batch gets a floor that leaves the buffer above it, not much more, and all that lies above it is kept."""
    maps, masks = make_images(8, 4, LARGE, decimals=decimals)
    capacity = max(normal_buffer, math.ceil(10 * upper_fpr * maps.numel()))
    # a batch within twice the buffer is kept whole, and so is any without a buffer; a floor that is there stays
    within_twice = maps.numel() * 6 // 10
    whole = keep(maps, masks & False, normal_buffer=within_twice, fpr_bounds=(1e-7, 1e-6))
    assert float(whole.aupimo_floor) == -math.inf
    assert float(keep(maps, masks, normal_buffer=None, fpr_bounds=(1e-7, 1e-6)).aupimo_floor) == -math.inf
    assert float(keep(maps, masks, floor=9.0, normal_buffer=10, fpr_bounds=(1e-7, 1e-6)).aupimo_floor) == 9
    for preds, target in ((maps, masks), ([*maps], [*masks])):
        metric = keep(preds, target, normal_buffer=normal_buffer, fpr_bounds=(upper_fpr / 10, upper_fpr))
        num_kept = len(joined(metric)["aupimo_normal_scores"])
        assert float(metric.aupimo_floor) > -math.inf
        assert num_kept >= capacity
        assert_keeps_exactly(metric, maps, masks)
        if decimals is None:  # a sample of 2**15 pixels: its noise, and as much to be safe
            assert num_kept < capacity + 12 * math.sqrt(capacity * maps.numel() / 2**15) + 100


@pytest.mark.parametrize("normal_buffer", [200, 12_000])
@pytest.mark.parametrize("is_bright", [False, True])
def test_misleading_sample_sets_no_wrong_floor(normal_buffer: int, is_bright: bool) -> None:
    """Whether the sampled pixels happen to be the bright ones or the dark ones, what the buffer promises is kept."""
    maps = torch.rand(4, *LARGE, generator=torch.Generator().manual_seed(10))
    num_pixels = LARGE[0] * LARGE[1]
    sampled = select.spread_places(num_pixels, round(num_pixels * 2**13 / maps.numel()))
    maps.view(4, -1)[:, sampled] += 10.0 if is_bright else -10.0
    metric = keep(maps, torch.zeros_like(maps), normal_buffer=normal_buffer, fpr_bounds=(1e-7, 1e-6))
    assert len(joined(metric)["aupimo_normal_scores"]) >= normal_buffer
    assert_keeps_exactly(metric, maps, torch.zeros_like(maps))


@pytest.mark.parametrize("num_pixels", [1, 2, 21 * 21, 84 * 84, 256 * 256, 1023 * 1023])
def test_a_sample_holds_no_pixel_twice(num_pixels: int) -> None:
    """As many different pixels are sampled as were asked for, or all."""
    places = select.spread_places(num_pixels, 4096)
    assert len({*places.tolist()}) == len(places) == min(num_pixels, 4096)
    assert 0 <= int(places.min()) <= int(places.max()) < num_pixels


@pytest.mark.parametrize("seed", range(3))
def test_sample_of_smooth_maps_spares_memory(seed: int) -> None:
    """A floor is found for smooth maps too, whose peaks lie close together, though a row is as long as the stride."""
    coarse = torch.randn(128, 1, 16, 4, generator=torch.Generator().manual_seed(seed))
    maps = torch.nn.functional.interpolate(coarse, size=(256, 64), mode="bilinear")[:, 0].exp()
    metric = keep(maps, maps < 0, normal_buffer=1000, fpr_bounds=(1e-5, 1e-4))
    capacity = math.ceil(10 * 1e-4 * maps.numel())
    assert capacity <= len(joined(metric)["aupimo_normal_scores"]) <= 4 * capacity


def test_what_may_still_count_is_kept_of_any_batch() -> None:
    """A constant batch is kept whole, and so are normal pixels that are fewer than the buffer; an empty batch is fine.

    All pixels of a constant batch are at its highest level; darker ones than the few may still come.
    """
    for empty in (([], []), (torch.zeros(0, 4, 4), torch.zeros(0, 4, 4))):
        assert_keeps_exactly(keep(*empty), *empty)
    for value in (0.0, -math.inf, math.inf):
        maps = torch.full((4, *LARGE), value)
        assert sum(map(len, keep(maps, maps != value, normal_buffer=10).aupimo_normal_scores)) == maps.numel()
    maps, masks = make_image_list(12, sizes=[LARGE] * 4 + [(3, 3)], anomalous=(0, 1, 2, 3))
    for images in ((maps, masks), (maps[::-1], masks[::-1])):
        metric = keep(*images, normal_buffer=10, fpr_bounds=(1e-7, 1e-6))
        assert len(joined(metric)["aupimo_normal_scores"]) == 9
        assert float(metric.aupimo_floor) == -math.inf


@pytest.mark.parametrize("classes", [(0, 1, 2, 3), (), (1, 3)])
@pytest.mark.parametrize("as_list", [False, True])
def test_device_is_waited_for_once(monkeypatch: pytest.MonkeyPatch, classes: tuple[int, ...], as_list: bool) -> None:
    """On another device an update waits once, for all maps of a list too, and needs few operations for a batch."""
    monkeypatch.setattr(select, "search_of", select.PixelSearch)
    tolist, num_operations = Tensor.tolist, []
    for repeats in (1, 20):
        maps, masks = make_images(3, size=(31, 33))
        masks[:] = False
        masks[list(classes), 4:6, 4:9] = True
        metric, copied = keep(maps, masks, floor=0.5), []
        batch = maps.float().repeat(repeats, 1, 1), masks.repeat(repeats, 1, 1).byte()
        with Operations() as operations, monkeypatch.context() as patch:
            patch.setattr(Tensor, "tolist", lambda tensor, to=copied: (to.append(1), tolist(tensor))[1])
            metric.update(*([*images] for images in batch)) if as_list else metric.update(*batch)
        assert len(copied) == 1
        assert not {*operations.names} & {"nonzero", "_local_scalar_dense", "masked_select", "item"}
        num_operations.append(len(operations.names))
    assert as_list or max(num_operations) == min(num_operations) <= 70
