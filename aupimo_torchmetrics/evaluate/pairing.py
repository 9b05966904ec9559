"""Which map belongs to which image, and reading both."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from pathlib import PurePosixPath
from typing import NamedTuple, ParamSpec, TypeVar

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from aupimo_torchmetrics._files import BadDataError
from aupimo_torchmetrics.evaluate.layouts import LabelledImage
from aupimo_torchmetrics.evaluate.map_files import MapFiles, image_size, read_mask

__all__ = [
    "BadFile",
    "BadFileError",
    "BadFilesError",
    "LoadedPair",
    "Pair",
    "PairReader",
    "Size",
    "pair_maps",
    "resized",
    "size_of",
]

MAX_LEADING_FOLDERS = 2
"""How many folders may stand in the path of a map before what the data set has too, as `MVTec/bottle/`."""

Size = tuple[int, int]
"""Height and width in pixels."""

_Arguments = ParamSpec("_Arguments")
_Content = TypeVar("_Content")


class BadFile(NamedTuple):
    """A file that cannot be evaluated."""

    path: str
    """Path of the file."""
    reason: str
    """What is wrong with it."""


class BadFileError(BadDataError):
    """A single file cannot be evaluated.

    Attributes:
        bad_file: The file, and the reason.

    """

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.bad_file = BadFile(path, reason)


class BadFilesError(BadDataError):
    """Files cannot be evaluated. The message has a line for each of them.

    Attributes:
        bad_files: All these files, with the reasons.

    """

    def __init__(self, bad_files: Sequence[BadFile], remedy: str) -> None:
        count = "1 file" if len(bad_files) == 1 else f"{len(bad_files)} files"
        lines = "".join(f"\n  {bad_file.path}: {bad_file.reason}" for bad_file in bad_files)
        super().__init__(f"{count} cannot be evaluated ({remedy}):{lines}")
        self.bad_files = list(bad_files)


class Pair(NamedTuple):
    """A test image and its map."""

    image: LabelledImage
    map_index: int
    """Index of the map in its file or folder."""
    name: str
    """Path of the map's image as the file of the maps gives it, or of the map."""


class LoadedPair(NamedTuple):
    """A test image with its map and its mask, which were read."""

    pair: Pair
    anomaly_map: Tensor
    """(H, W) floating, of the size of the mask."""
    mask: Tensor
    """(H, W) bool."""
    map_size: Size
    """Height and width of the map before it was resized."""


class PairReader(NamedTuple):
    """Reads maps with their masks."""

    maps: MapFiles
    resize: bool
    """Whether maps are resized to the size of their masks. If not, a map of another size is a bad file."""

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
        mask = self._mask(pair.image, size)
        if anomaly_map.shape != mask.shape and not self.resize:
            sizes = f"the map is {tuple(anomaly_map.shape)}, its mask {tuple(mask.shape)}"
            raise BadFileError(pair.name, f"{sizes}; without `resize=False` it would be resized")
        return LoadedPair(pair, resized(anomaly_map, mask.shape), mask, size)

    def _mask(self, image: LabelledImage, map_size: Size) -> Tensor:
        """Mask (H, W) bool of an image whose map has a size."""
        if image.masks:
            mask = _named(str(image.masks[0]), read_mask, image.masks)
            if image.has_defect and not bool(mask.any()):
                raise BadFileError(str(image.masks[0]), "the mask of an image with a defect is empty")
            return mask
        size = _named(str(image.path), image_size, image.path) if self.resize else map_size
        return torch.zeros(size, dtype=torch.bool)


def pair_maps(maps: MapFiles, images: Sequence[LabelledImage]) -> tuple[list[Pair], list[BadFile]]:
    """Find the map of each test image.

    A file of maps is often of one category of a collection, so a category without any map is not a reason to complain.

    Args:
        maps: Maps, whose paths may begin with one or two folders that the paths of the images do not have.
        images: Test images, sorted by key.

    Returns:
        Pairs in the order of the images. Bad files: a map without an image, a second map of an image, an image without
        a map whose category has others, and an image whose mask is missing.

    """
    image_keys = {image.key for image in images}
    indices: dict[str, int] = {}
    bad_files = []
    for index, (key, name) in enumerate(zip(_without_leading_folders(maps, image_keys), maps.names, strict=True)):
        if key in indices:
            bad_files.append(BadFile(name, "a second map of the same image"))
        elif key in image_keys:
            indices[key] = index
        else:
            bad_files.append(BadFile(name, "a map without a test image"))
    pairs = []
    with_maps = {image.category for image in images if image.key in indices}
    for image in images:
        if image.category not in with_maps:
            continue
        missing = [mask for mask in image.masks if not mask.is_file()]
        if image.key not in indices:
            bad_files.append(BadFile(str(image.path), "a test image without a map"))
        elif missing:
            bad_files.append(BadFile(str(image.path), f"its mask {missing[0]} is missing"))
        else:
            pairs.append(Pair(image, indices[image.key], maps.names[indices[image.key]]))
    return pairs, bad_files


def resized(image: Tensor, size: Sequence[int]) -> Tensor:
    """Resize a map or an image bilinearly, as the official package does.

    Args:
        image: Floating map (H, W) or image (C, H, W).
        size: Height and width to resize to, in pixels.

    Returns:
        Tensor (H', W') or (C, H', W'), the input itself if it has this size. A 16-bit input becomes float32.

    Example:
        >>> import torch
        >>> from aupimo_torchmetrics.evaluate.pairing import resized
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


def _without_leading_folders(maps: MapFiles, image_keys: Collection[str]) -> list[str]:
    """Keys of maps without their first folders, as many as make most of them keys of images."""
    keys = maps.keys()
    keys_by_folders = [
        [PurePosixPath(*key.parts[num_folders:]).as_posix() for key in keys]
        for num_folders in range(MAX_LEADING_FOLDERS + 1)
    ]
    return max(keys_by_folders, key=lambda keys: sum(key in image_keys for key in keys))


def _named(
    path: str, read: Callable[_Arguments, _Content], *args: _Arguments.args, **kwargs: _Arguments.kwargs
) -> _Content:
    """Read a file, and name it if it is bad."""
    try:
        return read(*args, **kwargs)
    except BadDataError as error:
        raise BadFileError(path, str(error)) from error
