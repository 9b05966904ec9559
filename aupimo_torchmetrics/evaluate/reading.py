"""Read the map of an image and its mask, both of one size."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, ParamSpec, TypeVar

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from aupimo_torchmetrics._files import BadDataError
from aupimo_torchmetrics.evaluate.bad_files import BadFileError
from aupimo_torchmetrics.evaluate.layouts import LabelledImage
from aupimo_torchmetrics.evaluate.map_files import MapFiles, image_size
from aupimo_torchmetrics.evaluate.masks import MaskRule, read_mask
from aupimo_torchmetrics.evaluate.pairing import Pair

__all__ = ["LoadedPair", "PairReader", "Size", "resized", "size_of"]

Size = tuple[int, int]
"""Height and width in pixels."""

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


class PairReader(NamedTuple):
    """Reads maps with their masks."""

    maps: MapFiles
    resize: bool
    """Whether maps are resized to the size of their masks. If not, a map of another size is a bad file."""
    mask_rule: MaskRule = MaskRule()
    """What the values of mask files mean."""

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
        if anomaly_map.shape != mask.shape and not self.resize:
            sizes = f"the map is {tuple(anomaly_map.shape)}, its mask {tuple(mask.shape)}"
            raise BadFileError(pair.name, f"{sizes}; without `resize=False` it would be resized")
        return LoadedPair(pair, resized(anomaly_map, mask.shape), mask, ignored, size)

    def _mask(self, image: LabelledImage, map_size: Size) -> tuple[Tensor, Tensor | None]:
        """Mask and ignored pixels, (H, W) bool or None, of an image whose map has a size."""
        if image.masks:
            classes = image.has_mask_classes
            mask, ignored = _named(str(image.masks[0]), read_mask, image.masks, self.mask_rule, has_classes=classes)
            if image.has_defect and not bool(mask.any()):
                raise BadFileError(str(image.masks[0]), "the mask of an image with a defect is empty")
            return mask, ignored
        size = _named(str(image.path), image_size, image.path) if self.resize and image.path else map_size
        return torch.zeros(size, dtype=torch.bool), None


def resized(image: Tensor, size: Sequence[int]) -> Tensor:
    """Resize a map or an image bilinearly, as the official package does.

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

    """
    if image.shape[-2:] == torch.Size(size):
        return image
    images = image.reshape(1, -1, *image.shape[-2:])
    images = images.float() if images.dtype in {torch.float16, torch.bfloat16} else images
    resized = interpolate(images, tuple(size), mode="bilinear")[0]
    return resized.reshape(*image.shape[:-2], *size)


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
