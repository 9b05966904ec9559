"""Which map belongs to which image, and reading both."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from aupimo_torchmetrics.evaluate.layouts import LabelledImage
from aupimo_torchmetrics.evaluate.map_files import MapFiles, image_size, read_mask

MAX_LEADING_FOLDERS = 2
"""How many folders may stand in the path of a map before what the data set has too, as `MVTec/bottle/`."""

Size = tuple[int, int]


class Fault(NamedTuple):
    """A file that cannot be evaluated, and why."""

    path: str
    reason: str


class FaultError(ValueError):
    """A single file cannot be evaluated."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.fault = Fault(path, reason)


class BadDataError(ValueError):
    """Files cannot be evaluated, all of them in one message."""

    def __init__(self, faults: Sequence[Fault], remedy: str) -> None:
        lines = "".join(f"\n  {fault.path}: {fault.reason}" for fault in faults)
        super().__init__(f"{len(faults)} files cannot be evaluated ({remedy}):{lines}")
        self.faults = list(faults)


class Pair(NamedTuple):
    """A test image and its map."""

    image: LabelledImage
    place: int
    """Place of the map in its file or folder."""
    name: str
    """Path of the map's image as the file of the maps gives it, or of the map."""


class LoadedPair(NamedTuple):
    """What was read of a test image and its map."""

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
    is_resizing: bool

    def read(self, pair: Pair) -> LoadedPair:
        """Read one map and its mask.

        Raises:
            FaultError: If one of the files cannot be evaluated.

        """
        anomaly_map = _blame(pair.name, self.maps.read, pair.place)
        size = size_of(anomaly_map)
        image = pair.image
        if image.masks:
            mask = _blame(str(image.masks[0]), read_mask, image.masks)
            if image.has_defect and not bool(mask.any()):
                raise FaultError(str(image.masks[0]), "the mask of an image with a defect is empty")
        else:
            mask_size = _blame(str(image.path), image_size, image.path) if self.is_resizing else size
            mask = torch.zeros(mask_size, dtype=torch.bool)
        if anomaly_map.shape != mask.shape and not self.is_resizing:
            shapes = f"the map is {tuple(anomaly_map.shape)}, its mask {tuple(mask.shape)}"
            raise FaultError(pair.name, f"{shapes}; without --no-resize it would be resized")
        return LoadedPair(pair, resized(anomaly_map, mask.shape), mask, size)


def pair_maps(maps: MapFiles, images: Sequence[LabelledImage]) -> tuple[list[Pair], list[Fault]]:
    """Find the map of each test image, and say which images and maps are alone and which masks are missing.

    A file of maps is often of one category of a collection, so categories without any map are not asked for.

    Args:
        maps: Maps, whose paths may begin with folders that the data set's paths have not.
        images: Test images, sorted.

    Returns:
        Pairs in the order of the images, and what cannot be paired.

    """
    keys = maps.keys()
    image_keys = {image.key for image in images}
    num_matches = [
        sum(_without_leading(key, num_folders) in image_keys for key in keys)
        for num_folders in range(MAX_LEADING_FOLDERS + 1)
    ]
    num_folders = num_matches.index(max(num_matches))
    places: dict[str, int] = {}
    faults = []
    for place, (key, name) in enumerate(zip(keys, maps.names, strict=True)):
        image_key = _without_leading(key, num_folders)
        if image_key in places:
            faults.append(Fault(name, "a second map of the same image"))
        elif image_key in image_keys:
            places[image_key] = place
        else:
            faults.append(Fault(name, "a map without a test image"))
    pairs = []
    with_maps = {image.category for image in images if image.key in places}
    for image in images:
        if image.category not in with_maps:
            continue
        missing = [mask for mask in image.masks if not mask.is_file()]
        if image.key not in places:
            faults.append(Fault(str(image.path), "a test image without a map"))
        elif missing:
            faults.append(Fault(str(image.path), f"its mask {missing[0]} is missing"))
        else:
            pairs.append(Pair(image, places[image.key], maps.names[places[image.key]]))
    return pairs, faults


def _without_leading(key: PurePosixPath, num_folders: int) -> str:
    """Key of an image without the first folders of a path."""
    return PurePosixPath(*key.parts[num_folders:]).as_posix()


def resized(image: Tensor, size: Sequence[int]) -> Tensor:
    """Bring a map (H, W) or image (C, H, W) to a size, bilinearly as the official package does."""
    if image.shape[-2:] == torch.Size(size):
        return image
    images = image.reshape(1, -1, *image.shape[-2:])
    images = images.float() if images.dtype in {torch.float16, torch.bfloat16} else images
    resized = interpolate(images, tuple(size), mode="bilinear")[0]
    return resized.reshape(*image.shape[:-2], *size)


def size_of(image: Tensor) -> Size:
    """Height and width of a map or mask."""
    return image.shape[0], image.shape[1]


def _blame(path: str, read: Any, *args: Any) -> Any:
    """Read something, and blame its file if that fails."""
    try:
        return read(*args)
    except ValueError as error:
        raise FaultError(path, str(error)) from error
