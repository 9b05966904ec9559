"""Which map belongs to which image, and what is wrong if that is not clear."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from aupimo_torchmetrics._paths import match_by_end
from aupimo_torchmetrics.evaluate.bad_files import BadFile
from aupimo_torchmetrics.evaluate.data.folders import LabelledImage
from aupimo_torchmetrics.evaluate.maps.open import MapFiles

__all__ = ["WITHOUT_IMAGE", "FoundPairs", "Pair", "bad_image", "full_path", "pair_maps"]

WITHOUT_IMAGE = "a map without a test image"
REMEDY = "paths of maps with more of the folders of the images, or `data` of one category, tell them apart"


class Pair(NamedTuple):
    """A test image and its map."""

    image: LabelledImage
    map_index: int
    """Index of the map in its file or folder."""
    name: str
    """Path of the map's image as the file of the maps gives it, or of the map."""


class FoundPairs(NamedTuple):
    """Images and their maps, before any is read."""

    pairs: list[Pair]
    """Images and maps that can be evaluated, as far as names and places of files say it."""
    bad_files: list[BadFile]
    """Images and rows of a table that cannot be evaluated, and maps without an image."""
    maps: MapFiles
    images: list[LabelledImage]
    """All test images, sorted by category and name."""
    notes: list[str]
    """What was understood of names and tables, a sentence each."""
    warnings: Mapping[str, list[str]] = MappingProxyType({})
    """Warnings about names and tables by category."""


def pair_maps(maps: MapFiles, images: Sequence[LabelledImage]) -> tuple[list[Pair], list[BadFile]]:
    """Find the map of each test image by its path, see `aupimo_torchmetrics._paths`.

    A file of maps is often of one category of a collection, so a category without any map is not a reason to complain.

    Args:
        maps: Maps.
        images: Test images, sorted by category and key.

    Returns:
        Pairs in the order of the images. Bad files: a map without an image, a map that fits two images, two maps of an
        image, an image without a map whose category has others, and an image with a problem.

    """
    have_categories = all(image.place is None for image in images)
    matches = match_by_end(maps.names, list(map(full_path, images)), have_categories=have_categories)
    indices = {image: [index] for index, image in enumerate(matches.images) if image is not None}
    indices |= matches.several_paths
    for index, numbers in matches.several_images.items():
        if all(images[number].problem for number in numbers):  # files of one name, which is a problem of theirs
            indices |= {number: [index] for number in numbers}
    found = {index for of_image in indices.values() for index in of_image}
    bad_files = []
    for index, name in enumerate(maps.names):
        if index not in found:
            fitting = [images[number].name for number in matches.several_images.get(index, [])]
            ambiguous = f"a map that fits several images, as {' and '.join(fitting[:2])}; {REMEDY}"
            bad_files.append(BadFile(name, ambiguous if fitting else WITHOUT_IMAGE))
    with_maps = {images[number].category for number in indices}
    pairs = []
    for number, image in enumerate(images):
        of_image = indices.get(number, [])
        problem = image.problem or ("" if of_image else "a test image without a map")
        if not problem and len(of_image) > 1:
            problem = _several_maps(maps, of_image)
        if not problem:
            pairs.append(Pair(image, of_image[0], maps.names[of_image[0]]))
        elif image.category in with_maps:
            bad_files.append(bad_image(image, problem))
    return pairs, bad_files


def full_path(image: LabelledImage) -> str:
    """Path of an image with its category, also where the data set is one category; in a table as it stands there."""
    is_full = image.place is not None or image.name.startswith(f"{image.category}/")
    return image.name if is_full else f"{image.category}/{image.name}"


def bad_image(image: LabelledImage, reason: str) -> BadFile:
    """Name an image that cannot be evaluated: by its row, if it is one of a table."""
    return BadFile(image.place, f"{image.name}: {reason}") if image.place else BadFile(image.name, reason)


def _several_maps(maps: MapFiles, indices: Sequence[int]) -> str:
    """Say that an image has several maps, by two of them, and which settings choose among them."""
    names = [maps.names[index] for index in indices[:2]]
    files = names if maps.files is None else [maps.files[index] for index in indices[:2]]
    one, two = (name if name == file else f"{name} in {file}" for name, file in zip(names, files, strict=True))
    return (
        f"several maps of one image, as {one} and {two}; the folder of one of them as `maps`, `map_suffix`, or a "
        "`table` with a column map says which"
    )
