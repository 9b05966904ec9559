"""Read the map of an image and its mask, both of one size."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from aupimo_torchmetrics._errors import BadDataError
from aupimo_torchmetrics.evaluate.bad_files import BadFileError
from aupimo_torchmetrics.evaluate.data.layouts import LabelledImage
from aupimo_torchmetrics.evaluate.maps.open import MapFiles
from aupimo_torchmetrics.evaluate.masks import DefectValue, MaskRule, read_mask
from aupimo_torchmetrics.evaluate.pairing import Pair, bad_image
from aupimo_torchmetrics.evaluate.photographs import UNKNOWN_LEVEL, Size, image_size, is_turned, read_image

__all__ = ["LoadedPair", "PairReader", "Size", "photograph", "resized", "size_of"]

MIN_WEIGHT = 1e-9
"""Weights of infinite scores that are smaller come from rounding, and are none."""


class LoadedPair(NamedTuple):
    """A test image with its map and its mask, which were read."""

    pair: Pair
    stored_map: Tensor
    """(h, w) floating, as it is in its file."""
    anomaly_map: Tensor
    """(H, W) float32, to which scores are rounded once, here; of the size of the mask."""
    mask: Tensor
    """(H, W) bool."""
    ignored: Tensor | None
    """(H, W) bool, true for a pixel that does not count; None if all count."""

    @property
    def map_size(self) -> Size:
        """Height and width of the map before it was resized."""
        return size_of(self.stored_map)


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
    _defect_values: dict[str, DefectValue] = field(default_factory=lambda: defaultdict(DefectValue), repr=False)
    """The value that is a defect in the masks of each category."""

    def read(self, pair: Pair) -> LoadedPair:
        """Read one map and its mask.

        Args:
            pair: An image, and the index of its map.

        Returns:
            Map and mask, both of the size of the mask. The mask of a normal image is empty and of the size of the
            image, or of the map if maps are not resized.

        Raises:
            BadFileError: If one of the files cannot be evaluated, or the map is turned by a quarter: if its sides fit
                those of the mask that change places, to a pixel of the map, and do not fit them as they are.

        """
        with _naming(pair.name):
            stored = self.maps.read(pair.map_index).detach()
        map_size = size_of(stored)
        mask, ignored = self._mask(pair.image, map_size)
        size = size_of(mask)
        if _is_across(size, map_size):
            raise BadFileError(pair.name, f"turned by a quarter: {_all_sizes(pair.image, map_size, size)}")
        if map_size != size and not self.resize:
            sizes = f"the map is {map_size}, its mask {size}"
            raise BadFileError(pair.name, f"{sizes}; without `resize=False` it would be resized")
        return LoadedPair(pair, stored, resized(stored.float(), size), mask, ignored)

    def _mask(self, image: LabelledImage, map_size: Size) -> tuple[Tensor, Tensor | None]:
        """Mask and ignored pixels, (H, W) bool or None, of an image whose map has a size."""
        if not image.masks:
            return torch.zeros(self._normal_size(image, map_size), dtype=torch.bool), None
        known, has_classes = self._defect_values[image.category], image.has_mask_classes
        mask, ignored = read_mask(image.masks, self.mask_rule, has_classes=has_classes, defect_value=known)
        num_pixels = int(mask.sum())
        if image.has_defect is False and num_pixels:
            reason = f"a normal image, but {num_pixels:,} pixels of its mask {image.masks[0]} are a defect"
            raise BadFileError(*bad_image(image, reason))
        if image.has_defect and not num_pixels:
            reason = f"an image with a defect, but its mask {image.masks[0]} is empty{_by(self.mask_rule)}"
            raise BadFileError(*bad_image(image, reason))
        return mask, ignored

    def _normal_size(self, image: LabelledImage, map_size: Size) -> Size:
        """Size of the mask that a normal image does not have: of the image, turned by EXIF if its map is, too."""
        if not self.resize or image.path is None:
            return map_size
        with _naming(str(image.path)):
            size = image_size(image.path)
            return size[::-1] if _is_across(size, map_size) and is_turned(image.path) else size


def photograph(loaded: LoadedPair) -> tuple[Tensor, str]:
    """Read the image of a map in the size of its mask.

    Args:
        loaded: Map and mask.

    Returns:
        (1, H, W) float32 in [0, 1], grey, and an empty text. If the image is not on disk or cannot be read, one grey
        level, and why.

    """
    image, size, note = loaded.pair.image, size_of(loaded.mask), "The image is not on disk."
    if image.path is not None:
        try:
            turn = _is_across(image_size(image.path), size) and is_turned(image.path)
            return resized(read_image(image.path, turn=turn), size), ""
        except (BadDataError, OSError) as error:
            note = f"The image cannot be read: {error}"
    return torch.full((1, *size), UNKNOWN_LEVEL), note


def resized(image: Tensor, size: Sequence[int]) -> Tensor:
    """Resize a map or an image bilinearly, as the official package does.

    Infinite values are taken for numbers that are larger than all others: what lies between one of them and finite
    values is infinite, and of both signs the one that weighs more wins.

    Args:
        image: Map (H, W) or image (C, H, W), float32 or float64.
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
    low, high = (float(bound) for bound in image.aminmax())
    largest = torch.finfo(image.dtype).max
    if max(-low, high) < largest / 2:
        return _interpolated(image, size)
    # A quarter of the largest numbers can be added up, and is exact.
    finite = torch.where(image.isfinite(), image / 4, 0.0)
    between = 4 * _interpolated(finite, size).clamp(finite.amin(), finite.amax())
    sign = _interpolated(torch.where(image.isinf(), image.sign(), 0.0).double(), size)
    return torch.where(sign.abs() < MIN_WEIGHT, between, (sign * torch.inf).to(between.dtype))


def _interpolated(image: Tensor, size: Sequence[int]) -> Tensor:
    """Resize an image (..., H, W) of finite values."""
    images = image.reshape(1, -1, *image.shape[-2:])
    return interpolate(images, tuple(size), mode="bilinear")[0].reshape(*image.shape[:-2], *size)


def _is_across(size: Size, map_size: Size) -> bool:
    """Whether a map fits a size whose sides change places, and not the size as it is."""
    return _fits(size[::-1], map_size) and not _fits(size, map_size)


def _fits(size: Size, map_size: Size) -> bool:
    """Whether one factor makes a size that of a map, to less than a pixel of the map: rounded down, up or off.

    Side `h` of the map may come from `H` by each factor in the open interval `((h - 1) / H, (h + 1) / H)`. Those of
    both sides have to meet.
    """
    (height, width), (map_height, map_width) = size, map_size
    return (map_height - 1) * width < (map_width + 1) * height and (map_width - 1) * height < (map_height + 1) * width


def _by(rule: MaskRule) -> str:
    """Name the settings of a rule."""
    settings = {"mask_threshold": rule.threshold, "ignore_index": rule.ignore_index}
    named = [f"`{name}={value:g}`" for name, value in settings.items() if value is not None]
    return f" by {' and '.join(named)}" if named else ""


def _all_sizes(image: LabelledImage, map_size: Size, size: Size) -> str:
    """Say how large a map, its mask and its image are."""
    sizes = [f"the map is {map_size}", *([f"its mask {size}"] if image.masks else [])]
    if image.path is not None:
        with _naming(str(image.path)):
            turned = ", turned by EXIF" if is_turned(image.path) else ""
            sizes.append(f"its image {image_size(image.path)}{turned}")
    return f"{', '.join(sizes)}. Please save all upright"


def size_of(image: Tensor) -> Size:
    """Return the height and width of a map or mask (H, W)."""
    return image.shape[0], image.shape[1]


@contextmanager
def _naming(path: str) -> Iterator[None]:
    """Name a file that is bad."""
    try:
        yield
    except BadDataError as error:
        raise BadFileError(path, str(error)) from error
