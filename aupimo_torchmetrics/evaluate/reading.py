"""Read the map of an image and its mask, both of one size."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, ParamSpec, TypeVar

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from aupimo_torchmetrics._errors import BadDataError
from aupimo_torchmetrics.evaluate.bad_files import BadFileError
from aupimo_torchmetrics.evaluate.data.layouts import LabelledImage
from aupimo_torchmetrics.evaluate.maps.open import MapFiles, image_size, is_turned, read_image
from aupimo_torchmetrics.evaluate.masks import DefectValue, MaskRule, read_mask
from aupimo_torchmetrics.evaluate.pairing import Pair, bad_image

__all__ = ["LoadedPair", "PairReader", "Size", "photograph", "resized", "size_of"]

Size = tuple[int, int]
"""Height and width in pixels."""

MIN_WEIGHT = 1e-9
"""Weights of infinite scores that are smaller come from rounding, and are none."""

MISSING_PHOTOGRAPH = 0.5
"""Grey level that stands for a photograph that cannot be read."""

_Arguments = ParamSpec("_Arguments")
_Content = TypeVar("_Content")


class LoadedPair(NamedTuple):
    """A test image with its map and its mask, which were read."""

    pair: Pair
    anomaly_map: Tensor
    """(H, W) floating, of the size of the mask."""
    mask: Tensor
    """(H, W) bool."""
    ignored: Tensor | None
    """(H, W) bool, true for a pixel that does not count; None if all count."""
    map_size: Size
    """Height and width of the map before it was resized."""


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
            BadFileError: If one of the files cannot be evaluated.

        """
        anomaly_map = _named(pair.name, self.maps.read, pair.map_index)
        size = size_of(anomaly_map)
        mask, ignored = self._mask(pair.image, size)
        if anomaly_map.shape != mask.shape:
            if not self.resize:
                sizes = f"the map is {tuple(anomaly_map.shape)}, its mask {tuple(mask.shape)}"
                raise BadFileError(pair.name, f"{sizes}; without `resize=False` it would be resized")
            if _is_across(size_of(mask), size):
                raise BadFileError(
                    pair.name,
                    f"turned by a quarter: the map is {size}, but its image {size_of(mask)}. Please save it upright",
                )
            anomaly_map = resized(anomaly_map, mask.shape)
            if bool(anomaly_map.isnan().any()):
                raise BadFileError(pair.name, f"NaN in the map after it was resized to {tuple(mask.shape)}")
        return LoadedPair(pair, anomaly_map, mask, ignored, size)

    def _mask(self, image: LabelledImage, map_size: Size) -> tuple[Tensor, Tensor | None]:
        """Mask and ignored pixels, (H, W) bool or None, of an image whose map has a size."""
        if not image.masks:
            return torch.zeros(self._image_size(image, map_size), dtype=torch.bool), None
        defect_value = self._defect_values[image.category]
        mask, ignored = read_mask(
            image.masks, self.mask_rule, has_classes=image.has_mask_classes, defect_value=defect_value
        )
        is_empty, where = not bool(mask.any()), image.masks[0]
        contradiction = None
        if image.has_defect is False and not is_empty:
            contradiction = f"a normal image, but {int(mask.sum()):,} pixels of its mask {where} are a defect"
        elif image.has_defect and is_empty:
            contradiction = f"an image with a defect, but its mask {where} {self._emptiness()}"
        elif self._is_turned(image, size_of(mask), map_size):
            contradiction = (
                f"turned by its EXIF orientation: its map is {map_size}, its mask {size_of(mask)}. Please save the "
                "image as it is to be seen, and make map and mask of it"
            )
        elif (
            image.path is not None
            and _is_across(size_of(mask), map_size)
            and self._file_size(image) == size_of(mask)[::-1]
        ):
            contradiction = f"its mask {where} is {size_of(mask)}, but the image {size_of(mask)[::-1]}"
        if contradiction:
            raise BadFileError(*bad_image(image, contradiction))
        return mask, ignored

    def _emptiness(self) -> str:
        """Say how a mask is empty under the rule."""
        threshold, ignore_index = self.mask_rule
        rules = [] if threshold is None else [f"has no value above `mask_threshold={threshold:g}`"]
        rules += [] if ignore_index is None else [f"is empty without pixels of `ignore_index={ignore_index}`"]
        return " and ".join(rules) or "is empty"

    def _image_size(self, image: LabelledImage, map_size: Size) -> Size:
        """Size of the mask that a normal image does not have."""
        if not self.resize or image.path is None:
            return map_size
        size = self._file_size(image)
        return size[::-1] if self._is_turned(image, size, map_size) else size

    def _is_turned(self, image: LabelledImage, size: Size, map_size: Size) -> bool:
        """Whether EXIF turns an image, and its map has the proportions of the turned image, not those of a size.

        Some programs turn such an image when they read it, and some do not.
        """
        if image.path is None or not _is_across(size, map_size):
            return False
        return _named(str(image.path), is_turned, str(image.path))

    @staticmethod
    def _file_size(image: LabelledImage) -> Size:
        """Size of an image that is on disk."""
        return _named(str(image.path), image_size, str(image.path))


def photograph(loaded: LoadedPair) -> tuple[Tensor, str]:
    """Read the image of a map in the size of its mask.

    Args:
        loaded: Map and mask.

    Returns:
        (1, H, W) float32 in [0, 1], grey, and an empty text. If the image is not on disk or cannot be read, one grey
        level, and why.

    """
    path, note = loaded.pair.image.path, "The image is not on disk."
    if path is not None:
        try:
            return resized(read_image(path), loaded.mask.shape), ""
        except (BadDataError, OSError) as error:
            note = f"The image cannot be read: {error}"
    return torch.full((1, *loaded.mask.shape), MISSING_PHOTOGRAPH), note


def resized(image: Tensor, size: Sequence[int]) -> Tensor:
    """Resize a map or an image bilinearly, as the official package does.

    Infinite values are taken for numbers that are larger than all others: what lies between one of them and finite
    values is infinite, and of both signs the one that weighs more wins.

    Args:
        image: Floating map (H, W) or image (C, H, W).
        size: Height and width to resize to, in pixels.

    Returns:
        Tensor (H', W') or (C, H', W'), the input itself if it has this size. A 16-bit input becomes float32.

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
    image = image.float() if image.dtype in {torch.float16, torch.bfloat16} else image
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
    """Whether a map has the proportions of a size turned by a quarter."""
    return size[0] != size[1] and size[0] * map_size[0] == size[1] * map_size[1]


def size_of(image: Tensor) -> Size:
    """Return the height and width of a map or mask (H, W)."""
    return image.shape[0], image.shape[1]


def _named(
    path: str, read: Callable[_Arguments, _Content], *args: _Arguments.args, **kwargs: _Arguments.kwargs
) -> _Content:
    """Read a file, and name it if it is bad."""
    try:
        return read(*args, **kwargs)
    except BadDataError as error:
        raise BadFileError(path, str(error)) from error
