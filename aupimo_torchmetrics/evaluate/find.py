"""Find what is evaluated: which maps of which images, by which masks."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

from aupimo_torchmetrics._errors import BadDataError, SettingError
from aupimo_torchmetrics._files.writing import existing_folder
from aupimo_torchmetrics._paths import as_key, category_in
from aupimo_torchmetrics._settings import Layout, check_choice
from aupimo_torchmetrics.evaluate.bad_files import BadFilesError
from aupimo_torchmetrics.evaluate.data.folders import is_file
from aupimo_torchmetrics.evaluate.data.layouts import find_test_images
from aupimo_torchmetrics.evaluate.data.table import open_table
from aupimo_torchmetrics.evaluate.maps.open import open_maps
from aupimo_torchmetrics.evaluate.pairing import WITHOUT_IMAGE, FoundPairs, Pair, full_path, pair_maps

__all__ = ["find_pairs"]

Source: TypeAlias = "str | os.PathLike[str] | None"
"""Where maps or data are."""


PUBLISHED_CATEGORIES = (
    "bottle cable capsule carpet grid hazelnut leather metal_nut pill screw tile toothbrush transistor wood zipper "
    "breakfast_box juice_bottle pushpins screw_bag splicing_connectors "
    "bagel cable_gland carrot cookie dowel foam peach potato rope tire "
    "can fabric fruit_jelly rice sheet_metal vial wallplugs walnuts "
    "candle capsules cashew chewinggum fryum macaroni1 macaroni2 pcb1 pcb2 pcb3 pcb4 pipe_fryum"
)
"""Of MVTec AD, LOCO, 3D-AD and AD 2, and of VisA."""


def find_pairs(  # noqa: PLR0917  the settings of the command
    maps: Source,
    data: Source,
    table: Any,
    layout: Layout,
    map_suffix: str | None,
    normal_folder: Sequence[str],
    follow_links: bool,
    split: Sequence[str] = (),
) -> FoundPairs:
    """Find the map of each image of a table, or else of a data set."""
    _check_settings(maps, data, table, layout, map_suffix, normal_folder)
    if split and maps is None:
        raise SettingError("Expected `split` with `maps` only, but got a `table` that names each map.")
    given = None if maps is None else open_maps(maps, map_suffix, split, follow_links=follow_links)
    if data is None or given is None:
        found = open_table(table, given)
    else:
        images = find_test_images(data, layout, normal_folder, follow_links=follow_links)
        found = FoundPairs(*pair_maps(given, images), given, images, [])
    if found.images and sum(each.reason == WITHOUT_IMAGE for each in found.bad_files) == len(found.maps.names):
        example = f"{found.maps.names[0]} and {full_path(found.images[0])}"
        remedy = (
            f"no path of a map fits that of an image, as {example}: give as `maps` the folder below which the paths "
            "agree, or a `table` (see `write_table`) with a column map, or for a set of maps with a column name that "
            "holds its paths"
        )
        raise BadFilesError(found.bad_files, remedy)
    if maps is None:
        return found
    remarks, warnings = _remarks(Path(maps), data, found.pairs)
    return found._replace(notes=[*remarks, *found.notes], warnings=warnings)


def _check_settings(  # noqa: PLR0917
    maps: Source, data: Source, table: Any, layout: Layout, map_suffix: str | None, normal_folder: Sequence[str]
) -> None:
    """Raise unless there are maps, and a data set or a table, with settings that go together."""
    check_choice("layout", layout, Layout)
    wrong = {
        "exactly one of `data` and `table`, but got neither": data is None and table is None,
        "exactly one of `data` and `table`, but got both": data is not None and table is not None,
        "`layout` and `normal_folder` with `data` only, but got `table`, which says itself which images are normal": (
            table is not None and (layout != "auto" or len(normal_folder) > 0)
        ),
        "`maps`, as only a `table` can name the map of each image, but got none": maps is None and table is None,
        "`map_suffix` with `maps` only, but got a `table` that names each map": maps is None and map_suffix is not None,
        f"`maps` to be a file `asmaps.pt` or a folder of maps, but there is no {maps}": (
            maps is not None and not Path(maps).exists()
        ),
        f"`table` to be a file, but there is no file {table}": (
            isinstance(table, (str, os.PathLike)) and not Path(table).is_file()
        ),
    }
    for expected, is_wrong in wrong.items():
        if is_wrong:
            raise SettingError(f"Expected {expected}.")
    if data is None or maps is None:
        return
    if _has_masks(maps) and not _has_masks(data):
        raise SettingError(
            f"Expected `maps` to hold anomaly maps and `data` images with masks, but there are such images in {maps}, "
            f"and none in {data}. Give them the other way round."
        )
    existing_folder("data", data)


def _has_masks(folder: str | os.PathLike[str]) -> bool:
    """Whether a folder is a data set with masks."""
    try:
        return any(is_file(mask) for image in find_test_images(folder) for mask in image.masks)
    except (BadDataError, SettingError):
        return False


def _remarks(
    maps: Path, data: str | os.PathLike[str] | None, pairs: Sequence[Pair]
) -> tuple[list[str], dict[str, list[str]]]:
    """Say by an example which map was taken for which image, and warn of each category whose maps name another one.

    A path names the category by the folder in front of `test` or its like; that of a map begins two folders above it.
    Any folder may hold maps: it names a category if that is a published one, or a folder beside the data.

    Args:
        maps: Folder or file of the maps.
        data: Folder of the data set; None for a table.
        pairs: Images and maps that were matched by their paths.

    Returns:
        Notes: the example, unless the paths are equal but for the suffix. Warnings by category.

    """
    notes, warnings = [], {}
    folders = (maps.absolute() if maps.is_dir() else maps.absolute().parent).parts
    for category, pair in sorted({pair.image.category: pair for pair in reversed(pairs)}.items()):
        image, name = full_path(pair.image), pair.name.replace("\\", "/")
        example = f"{f'{folders[-1]}/' if maps.is_dir() else ''}{pair.name} -> {image}"
        named, expected = category_in("/".join((*folders[-2:], name))), category_in(image)
        is_there = category in {*folders, *name.split("/")}
        beside = Path(data or maps).absolute().parent / named
        is_category = beside.is_dir() and beside not in {maps.absolute(), *maps.absolute().parents}
        is_category |= named in PUBLISHED_CATEGORIES.split()
        if named and expected and named != expected and is_category and not is_there:
            warnings[category] = [f"the maps lie in {named}, the images in {expected}, as {example}"]
        elif as_key(name) != as_key(image) and not (is_there and as_key(name) == pair.image.key):
            notes.append(f"maps were matched by their paths, as {example}")
    return notes[:1], warnings
