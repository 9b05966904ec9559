"""Which map belongs to which image."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import PurePosixPath
from typing import NamedTuple

from aupimo_torchmetrics.evaluate.bad_files import BadFile
from aupimo_torchmetrics.evaluate.layouts import LabelledImage
from aupimo_torchmetrics.evaluate.map_files import MapFiles

__all__ = ["Pair", "pair_maps"]

MAX_LEADING_FOLDERS = 2
"""How many folders may stand in the path of a map before what the data set has too, as `MVTec/bottle/`."""


class Pair(NamedTuple):
    """A test image and its map."""

    image: LabelledImage
    map_index: int
    """Index of the map in its file or folder."""
    name: str
    """Path of the map's image as the file of the maps gives it, or of the map."""


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


def _without_leading_folders(maps: MapFiles, image_keys: Collection[str]) -> list[str]:
    """Keys of maps without their first folders, as many as make most of them keys of images."""
    keys = maps.keys()
    keys_by_folders = [
        [PurePosixPath(*key.parts[num_folders:]).as_posix() for key in keys]
        for num_folders in range(MAX_LEADING_FOLDERS + 1)
    ]
    return max(keys_by_folders, key=lambda keys: sum(key in image_keys for key in keys))
