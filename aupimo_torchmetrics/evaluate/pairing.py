"""Which map belongs to which image, and what is wrong if that is not clear."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import NamedTuple

from aupimo_torchmetrics._paths import match_by_end
from aupimo_torchmetrics.evaluate.bad_files import BadFile
from aupimo_torchmetrics.evaluate.data.folders import LabelledImage, is_file
from aupimo_torchmetrics.evaluate.maps.open import MapFiles

__all__ = ["WITHOUT_IMAGE", "Pair", "bad_image", "full_path", "pair_images", "pair_maps"]

WITHOUT_IMAGE = "a map without a test image"
MAX_NAMED = 4
"""How many maps of one image are named."""


class Pair(NamedTuple):
    """A test image and its map."""

    image: LabelledImage
    map_index: int
    """Index of the map in its file or folder."""
    name: str
    """Path of the map's image as the file of the maps gives it, or of the map."""


def pair_maps(maps: MapFiles, images: Sequence[LabelledImage]) -> tuple[list[Pair], list[BadFile]]:
    """Find the map of each test image by its path, see `aupimo_torchmetrics._paths`.

    A file of maps is often of one category of a collection, so a category without any map is not a reason to complain.

    Args:
        maps: Maps.
        images: Test images, sorted by category and key.

    Returns:
        Pairs in the order of the images. Bad files: a map without an image, a map that fits two images, two maps of an
        image, an image without a map whose category has others, and an image with a problem or whose mask is missing.

    """
    have_categories = all(image.place is None for image in images)
    matches = match_by_end(maps.names, list(map(full_path, images)), have_categories=have_categories)
    indices = {image: [index] for index, image in enumerate(matches.images) if image is not None}
    indices |= matches.several_paths
    found = {index for of_image in indices.values() for index in of_image}
    bad_files = []
    for index, name in enumerate(maps.names):
        fitting = [images[number] for number in matches.several_images.get(index, [])]
        if fitting and all(image.problem for image in fitting):  # files of one name, which is a problem of theirs
            indices |= {number: [index] for number in matches.several_images[index]}
        elif index not in found:
            bad_files.append(BadFile(name, _ambiguous(fitting) if fitting else WITHOUT_IMAGE))
    with_maps = {images[number].category for number in indices}
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
            bad_files.append(bad_image(image, _several_maps(maps, of_image)))
        else:
            pairs.append(Pair(image, of_image[0], maps.names[of_image[0]]))
    return _with_masks(pairs, bad_files)


def full_path(image: LabelledImage) -> str:
    """Path of an image with its category, also where the data set is one category; in a table as it stands there."""
    is_full = image.place is not None or image.name.startswith(f"{image.category}/")
    return image.name if is_full else f"{image.category}/{image.name}"


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


def _ambiguous(images: Sequence[LabelledImage]) -> str:
    """Say that a map fits several images."""
    more = f" and {len(images) - 2} more" if len(images) > 2 else ""
    return (
        f"a map that fits several images, {images[0].name}, {images[1].name}{more}; "
        "paths of maps with more of the folders of the images, or `data` of one category, tell them apart"
    )


def _several_maps(maps: MapFiles, indices: Sequence[int]) -> str:
    """Say that an image has several maps, and which settings choose among them."""
    names = [maps.names[index] for index in indices]
    named, choice = names, "a set needs one map of each image"
    if maps.files is not None:
        files = [maps.files[index] for index in indices]
        pairs = zip(names, files, strict=True)
        named = [name if name == file else f"{name} (in {file})" for name, file in pairs]
        choice = _choice(names, files) if len({*files}) > 1 else choice
    more = f" and {len(named) - MAX_NAMED} more" if len(named) > MAX_NAMED else ""
    return f"several maps of one image, {', '.join(named[:MAX_NAMED])}{more}; {choice}"


def _choice(names: Sequence[str], files: Sequence[str]) -> str:
    """Name what chooses among several maps of one image: a folder or a set, or else the ending of the files."""
    sets = {PurePosixPath(file) for name, file in zip(names, files, strict=True) if name != file}
    places = sets or {PurePosixPath(file).parent for file in files}
    while len(places) > 1 and len({place.name for place in places}) == 1:
        places = {place.parent for place in places}
    if sets or len(places) > 1:
        apart = {place for place in places if not any(place in other.parents for other in places)}
        return f"give one of these alone as `maps`: {', '.join(sorted(map(str, apart))[:MAX_NAMED])}"
    start = len(os.path.commonprefix(files))  # noqa: RUF071  of letters, up to the endings
    while any(file[start : start + 1] not in "._- " for file in files):
        start -= 1
    endings = sorted({file[start:] for file in files})[:MAX_NAMED]
    return f"`map_suffix` (here {' or '.join(endings)}), or a `table` with a column map, says which"
