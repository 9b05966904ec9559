"""Which map belongs to which image, and what is wrong if that is not clear."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import NamedTuple

from aupimo_torchmetrics.evaluate.bad_files import BadFile
from aupimo_torchmetrics.evaluate.data.folders import LabelledImage, is_file
from aupimo_torchmetrics.evaluate.maps.open import MapFiles
from aupimo_torchmetrics.evaluate.ways import SEPARATORS, fitting_images

__all__ = ["Pair", "bad_image", "pair_images", "pair_maps"]

MAX_NAMED = 4
"""How many maps of one image are named."""
MAX_ENDINGS = 20
"""How many endings of maps are tried where images have several maps."""


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
        maps: Maps, whose paths have an end in common with those of the images: folders may be missing at the beginning
            of either. Their names may go on after those of the images, or begin before them, or hold their folders,
            all in the same way.
        images: Test images, sorted by category and key.

    Returns:
        Pairs in the order of the images. Bad files: a map without an image, a map that fits two images, two maps of an
        image, an image without a map whose category has others, and an image with a problem or whose mask is missing.

    """
    bad_files = []
    indices: dict[int, list[int]] = {}
    for index, fitting in enumerate(fitting_images(maps.names, images)):
        if not fitting:
            bad_files.append(BadFile(maps.names[index], "a map without a test image"))
        elif len({images[number].key for number in fitting}) > 1:
            bad_files.append(BadFile(maps.names[index], _ambiguous([images[number].name for number in fitting])))
        else:
            for number in fitting:  # several if files have one name, which is a problem of theirs
                indices.setdefault(number, []).append(index)
    with_maps = {images[number].category for number in indices}
    files = maps.names if maps.files is None else maps.files
    advice = _MapSuffixes([[files[index] for index in of_image] for of_image in indices.values()])
    pairs = []
    for number, image in enumerate(images):
        if image.category not in with_maps:
            continue
        of_image = indices.get(number, [])
        if image.problem:
            bad_files.append(bad_image(image, image.problem))
        elif not of_image:
            bad_files.append(bad_image(image, "a test image without a map"))
        elif len(of_image) > 1:
            of_files = [(maps.names[index], files[index]) for index in of_image]
            bad_files.append(bad_image(image, advice.several_maps(of_files, image.category)))
        else:
            pairs.append(Pair(image, of_image[0], maps.names[of_image[0]]))
    return _with_masks(pairs, bad_files)


def bad_image(image: LabelledImage, reason: str) -> BadFile:
    """Name an image that cannot be evaluated: by its row, if it is one of a table."""
    return BadFile(image.place, f"{image.name}: {reason}") if image.place else BadFile(image.name, reason)


def pair_images(
    maps: MapFiles, images: Sequence[LabelledImage], map_indices: Sequence[int]
) -> tuple[list[Pair], list[BadFile]]:
    """Pair images with maps that are known to be theirs.

    Args:
        maps: Maps.
        images: Test images, sorted by category and key.
        map_indices: Index of the map of each image.

    Returns:
        Pairs in the order of the images. Bad files: an image with a problem or whose mask is missing.

    """
    bad_files = [bad_image(image, image.problem) for image in images if image.problem]
    pairs = [
        Pair(image, index, maps.names[index])
        for image, index in zip(images, map_indices, strict=True)
        if not image.problem
    ]
    return _with_masks(pairs, bad_files)


def _with_masks(pairs: Sequence[Pair], bad_files: list[BadFile]) -> tuple[list[Pair], list[BadFile]]:
    """Part pairs whose masks are there from those that are bad files."""
    complete = []
    for pair in pairs:
        missing = [mask for mask in pair.image.masks if not is_file(mask)]
        if missing:
            remedy = "" if pair.image.has_defect is not None else "; that of a normal image is empty"
            bad_files.append(bad_image(pair.image, f"its mask {missing[0]} is missing{remedy}"))
        else:
            complete.append(pair)
    return complete, bad_files


def _ambiguous(names: Sequence[str]) -> str:
    """Say that a map fits several images."""
    more = f" and {len(names) - 2} more" if len(names) > 2 else ""
    return (
        f"a map that fits several images, {names[0]}, {names[1]}{more}; "
        "paths of maps with more of the folders of the images, or `data` of one category, tell them apart"
    )


class _MapSuffixes:
    """Finds what settles which of several maps counts.

    Args:
        files: Files of the maps of each image that has any.

    """

    def __init__(self, files: Sequence[Sequence[str]]) -> None:
        self._files = files
        self._settles: dict[str, bool] = {}

    def several_maps(self, maps: Sequence[tuple[str, str]], category: str) -> str:
        """Say that an image has several maps, given with their files, and what leaves one map of each image."""
        files = [file for _, file in maps]
        suffixes = [os.path.splitext(file)[1] for file in files]  # noqa: PTH122
        endings = suffixes if len(set(suffixes)) == len(files) else _endings(files[: MAX_NAMED + 1])
        settling = [f'`map_suffix="{ending}"`' for ending in endings if self._does_settle(ending)]
        are_of_category = [category in PurePosixPath(name.replace("\\", "/")).parts for name, _ in maps]
        remedy = "all but one have to go"
        if settling:
            remedy = f"{' or '.join(settling)} says which"
        elif are_of_category.count(True) == 1:
            remedy = f"give the maps of {category} alone as `maps`, such as its folder"
        named = [name if name == file else f"{name} (in {file})" for name, file in maps[:MAX_NAMED]]
        more = f" and {len(maps) - MAX_NAMED} more" if len(maps) > MAX_NAMED else ""
        return f"several maps of one image, {', '.join(named)}{more}; {remedy}"

    def _does_settle(self, ending: str) -> bool:
        """Whether each image has one map in a file with this ending."""
        if ending not in self._settles and len(self._settles) < MAX_ENDINGS:
            ends = ending.lower()
            counts = (sum(file.lower().endswith(ends) for file in files) for files in self._files)
            self._settles[ending] = all(count == 1 for count in counts)
        return self._settles.get(ending, False)


def _endings(names: Sequence[str]) -> list[str]:
    """Endings of names in one folder by which one of them can be told from the others, as `_map.tiff`."""
    common = os.path.commonprefix(list(names))  # noqa: RUF071  letters, not folders
    start = len(common)
    if any(name[start : start + 1] not in SEPARATORS for name in names):
        start = max(common.rfind(letter) for letter in SEPARATORS)
    endings = [name[start:] for name in names] if start > 0 else []
    return [each for each in endings if "/" not in each and sum(name.endswith(each) for name in names) == 1]
