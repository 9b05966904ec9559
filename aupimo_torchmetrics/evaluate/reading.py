"""Read the map of an image and its mask, both of one size."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from aupimo_torchmetrics._engine.saturation import highest_scores
from aupimo_torchmetrics._errors import BadDataError
from aupimo_torchmetrics.evaluate.bad_files import BadFileError, naming
from aupimo_torchmetrics.evaluate.data.layouts import LabelledImage
from aupimo_torchmetrics.evaluate.maps.open import MapFiles
from aupimo_torchmetrics.evaluate.masks import MaskRule, read_mask
from aupimo_torchmetrics.evaluate.pairing import Pair, bad_image
from aupimo_torchmetrics.evaluate.photographs import UNKNOWN_LEVEL, Size, image_size, is_across, read_image
from aupimo_torchmetrics.evaluate.regions import read_regions

__all__ = ["IGNORED", "LoadedPair", "PairReader", "Size", "photograph", "resized", "size_of", "size_text"]

IGNORED = 255
"""Stands in a target for a pixel that does not count."""
MIN_WEIGHT = 1e-9
"""Weights of infinite scores that are smaller come from rounding, and are none."""


class LoadedPair(NamedTuple):
    """A test image with its map and its mask, which were read."""

    pair: Pair
    stored_map: Tensor
    """(h, w) floating, as it is in its file."""
    anomaly_map: Tensor
    """(H, W) float32, to which scores are rounded once, here; of the size of the mask, or of one size for all."""
    mask: Tensor
    """(H, W) bool."""
    ignored: Tensor | None
    """(H, W) bool, true for a pixel that does not count; None if all count."""
    highest_in_regions: list[Tensor]
    """The scores that decide of each region of the annotation, see `highest_scores`; none if they are not read."""

    @property
    def is_counted(self) -> Tensor:
        """(H, W) bool, true for a pixel that counts."""
        return torch.ones_like(self.mask) if self.ignored is None else ~self.ignored

    @property
    def target(self) -> Tensor:
        """The mask (H, W) bool, or if pixels are ignored uint8, with `IGNORED` for these."""
        return self.mask if self.ignored is None else self.mask.to(torch.uint8).masked_fill(self.ignored, IGNORED)


@dataclass(frozen=True)
class PairReader:
    """Reads maps with their masks.

    In the masks of a category one value has to mean a defect, unless there is a threshold. It is remembered from the
    first of them that is read.
    """

    maps: MapFiles
    resize: bool
    """Whether maps are resized to the size of their masks. If not, a map of another size is a bad file."""
    mask_rule: MaskRule = field(default_factory=MaskRule)
    """What the values of mask files mean."""
    has_regions: bool = False
    """Whether regions of the annotation are read, too."""
    size: Size | None = None
    """Size of all maps and masks, if they are resized to one: maps bilinearly, masks to the nearest pixel."""
    _known_values: dict[str, dict[str, str]] = field(default_factory=lambda: defaultdict(dict), repr=False)
    """The value that is a defect in the masks of each category, and the path of the first of them."""

    def read(self, pair: Pair) -> LoadedPair:
        """Read one map and its mask.

        Args:
            pair: An image, and the index of its map.

        Returns:
            Map and mask, both of the size of the mask, or of the one size for all. The mask of a normal image is empty
            and of the size of the image, or of the map if maps are not resized.

        Raises:
            BadFileError: If one of the files cannot be evaluated, or the map is turned by a quarter: if its sides fit
                those of the mask that change places, to a pixel of the map, and do not fit them as they are.

        """
        with naming(pair.name):
            stored = self.maps.read(pair.map_index).detach()
        map_size = size_of(stored)
        mask, ignored = self._mask(pair.image, map_size)
        size = size_of(mask)
        sizes = f"the map is {map_size}, its {'mask' if pair.image.masks else 'image'} {size}"
        if is_across(size, map_size):
            raise BadFileError(pair.name, f"turned by a quarter: {sizes}. Please save all upright, not turned by EXIF")
        if map_size != size and not self.resize:
            raise BadFileError(pair.name, f"{sizes}; without `resize=False` it would be resized")
        if self.size is not None:
            small, ignored = nearest(mask, self.size), None if ignored is None else nearest(ignored, self.size)
            if bool(mask.any()) and not bool(small.any()):
                reason = f"no pixel of its mask {pair.image.masks[0]} is left at {size_text(self.size)}"
                raise BadFileError(*bad_image(pair.image, reason))
            mask = small
        if ignored is not None and bool(ignored.all()):
            raise BadFileError(str(pair.image.masks[0]), "every pixel of the mask is ignored")
        anomaly_map = resized(stored.float(), self.size or size)
        regions = read_regions(pair.image.masks, ignored) if self.has_regions else []
        highest = [highest_scores(anomaly_map, region, area) for region, area in regions]
        return LoadedPair(pair, stored, anomaly_map, mask, ignored, highest)

    def _mask(self, image: LabelledImage, map_size: Size) -> tuple[Tensor, Tensor | None]:
        """Mask and ignored pixels, (H, W) bool or None, of an image whose map has a size."""
        if not image.masks:
            size = map_size
            if self.resize and image.path is not None:
                with naming(str(image.path)):
                    size = image_size(image.path, like=map_size)
            return torch.zeros(size, dtype=torch.bool, device="cpu"), None
        known, has_classes = self._known_values[image.category], image.has_mask_classes
        mask, ignored = read_mask(image.masks, self.mask_rule, has_classes=has_classes, known=known)
        num_pixels, first = int(mask.sum()), image.masks[0]
        by_rule = "" if self.mask_rule == MaskRule() else " by `mask_threshold` and `ignore_index`"
        if image.has_defect and not num_pixels:
            raise BadFileError(*bad_image(image, f"an image with a defect, but its mask {first} is empty{by_rule}"))
        if image.has_defect is False and num_pixels:
            reason = f"a normal image, but {num_pixels:,} pixels of its mask {first} are a defect"
            raise BadFileError(*bad_image(image, reason))
        return mask, ignored


def photograph(loaded: LoadedPair) -> tuple[Tensor, str]:
    """Read the image of a map in the size of its mask.

    Args:
        loaded: Map and mask.

    Returns:
        (1, H, W) float32 in [0, 1], grey, and an empty text. If the image is not on disk or cannot be read, one grey
        level, and why.

    """
    path, size, note = loaded.pair.image.path, size_of(loaded.mask), "The image is not on disk."
    if path is not None:
        try:
            return resized(read_image(path, like=size), size), ""
        except (BadDataError, OSError) as error:
            note = f"The image cannot be read: {error}"
    return torch.full((1, *size), UNKNOWN_LEVEL, device="cpu"), note


def resized(image: Tensor, size: Sequence[int]) -> Tensor:
    """Resize a map or an image bilinearly, as the official package does.

    Infinite values are taken for numbers that are larger than all others: what lies between one of them and finite
    values is infinite, and of both signs the one that weighs more wins.

    Args:
        image: Map (H, W) or image (C, H, W), float32.
        size: Height and width to resize to, in pixels.

    Returns:
        Tensor (H', W') or (C, H', W'), the input itself if it has this size.

    Example:
        >>> import torch
        >>> from aupimo_torchmetrics.evaluate.reading import resized
        >>> resized(torch.tensor([[0.0, 1.0]]), (1, 4))
        tensor([[0.0000, 0.2500, 0.7500, 1.0000]])
        >>> resized(torch.tensor([[0.0, torch.inf]]), (1, 4))
        tensor([[0., inf, inf, inf]])

    """
    if image.shape[-2:] == torch.Size(size):
        return image
    if float(image.abs().amax()) < torch.finfo(torch.float32).max / 2:
        return _interpolated(image, size)
    # Sums of large numbers are finite in float64.
    between = _interpolated(torch.where(image.isfinite(), image, 0.0).double(), size)
    sign = _interpolated(torch.where(image.isinf(), image.sign(), 0.0).double(), size)
    return torch.where(sign.abs() < MIN_WEIGHT, between, sign * torch.inf).float()


def nearest(mask: Tensor, size: Sequence[int]) -> Tensor:
    """Resize a mask (H, W) bool to the nearest pixel, as `torch.nn.functional.interpolate` does by default."""
    return interpolate(mask[None, None].float(), tuple(size), mode="nearest")[0, 0].bool()


def size_text(size: Size) -> str:
    """Write a size as height x width."""
    return f"{size[0]} x {size[1]}"


def _interpolated(image: Tensor, size: Sequence[int]) -> Tensor:
    """Resize an image (..., H, W) of finite values."""
    images = image.reshape(1, -1, *image.shape[-2:])
    return interpolate(images, tuple(size), mode="bilinear")[0].reshape(*image.shape[:-2], *size)


def size_of(image: Tensor) -> Size:
    """Return the height and width of a map or mask (H, W)."""
    return image.shape[0], image.shape[1]
