"""Find what is evaluated: which maps of which images, by which masks."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from aupimo_torchmetrics._errors import BadDataError, SettingError
from aupimo_torchmetrics._files.writing import existing_folder
from aupimo_torchmetrics._paths import PUBLISHED_CATEGORIES, as_key
from aupimo_torchmetrics._settings import Layout, check_choice
from aupimo_torchmetrics.evaluate.bad_files import BadFile, BadFilesError
from aupimo_torchmetrics.evaluate.data.folders import is_file
from aupimo_torchmetrics.evaluate.data.layouts import LabelledImage, find_test_images
from aupimo_torchmetrics.evaluate.data.table import open_table
from aupimo_torchmetrics.evaluate.maps.open import MapFiles, open_maps
from aupimo_torchmetrics.evaluate.masks import MaskRule
from aupimo_torchmetrics.evaluate.pairing import WITHOUT_IMAGE, Pair, full_path, pair_maps
from aupimo_torchmetrics.evaluate.reading import PairReader

__all__ = ["EvaluatedPairs", "FoundPairs", "find_evaluated_pairs", "find_pairs"]

Source: TypeAlias = "str | os.PathLike[str] | None"
"""Where maps or data are."""


class FoundPairs(NamedTuple):
    """Maps and images that were found, before any is read."""

    maps: MapFiles
    images: list[LabelledImage]
    pairs: list[Pair]
    bad_files: list[BadFile]
    notes: list[str]
    """What was understood of names and tables, a sentence each."""
    warnings: dict[str, list[str]]
    """Warnings about names and tables by category."""


def find_pairs(  # noqa: PLR0917  the settings of the command
    maps: Source,
    data: Source,
    table: Any,
    layout: Layout,
    map_suffix: str | None,
    normal_folder: Sequence[str],
    follow_links: bool,
) -> FoundPairs:
    """Find the map of each image of a table, or else of a data set."""
    _check_settings(maps, data, table, layout, map_suffix, normal_folder)
    if maps is None:
        pairs, bad_files, map_files, images, notes = open_table(table)
        return FoundPairs(map_files, images, pairs, bad_files, notes, {})
    if data is None:
        map_files = open_maps(maps, map_suffix, follow_links=follow_links)
        pairs, bad_files, _, images, notes = open_table(table, map_files)
    else:
        notes = []
        try:
            images = find_test_images(data, layout, normal_folder, follow_links=follow_links)
            map_files = open_maps(maps, map_suffix, follow_links=follow_links)
        except BadDataError:
            _check_order(maps, data)
            raise
        pairs, bad_files = pair_maps(map_files, images)
        if bad_files:
            _check_order(maps, data)
    if images and sum(bad_file.reason == WITHOUT_IMAGE for bad_file in bad_files) == len(map_files.names):
        raise BadFilesError(bad_files, _nothing_fits(map_files.names[0], images[0]))
    remarks, warnings = _remarks(Path(maps), data, pairs)
    return FoundPairs(map_files, images, pairs, bad_files, [*remarks, *notes], warnings)


def _check_settings(  # noqa: PLR0917
    maps: Source, data: Source, table: Any, layout: Layout, map_suffix: str | None, normal_folder: Sequence[str]
) -> None:
    """Raise unless there are maps, and a data set or a table, with settings that go together."""
    check_choice("layout", layout, Layout)
    is_map_named = maps is None and table is not None
    found = "neither" if data is None else "both"
    wrong = {
        f"exactly one of `data` and `table`, but got {found}": (data is None) == (table is None),
        "`layout` and `normal_folder` with `data` only, but got `table`, which says itself which images are normal": (
            table is not None and (layout != "auto" or len(normal_folder) > 0)
        ),
        "`maps`, as only a `table` can name the map of each image, but got none": maps is None and table is None,
        "`map_suffix` with `maps` only, but got a `table` that names each map": is_map_named and map_suffix is not None,
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
    if data is not None:
        if maps is not None and Path(data).is_file():
            _check_order(maps, data)
        existing_folder("data", data)


def _check_order(maps: str | os.PathLike[str], data: str | os.PathLike[str]) -> None:
    """Raise if `maps` holds test images with masks, and `data` none: they were given the wrong way round."""
    if _has_masks(maps) and not _has_masks(data):
        raise SettingError(
            f"Expected `maps` to hold anomaly maps and `data` images with masks, but there are such images in {maps}, "
            f"and none in {data}. Give them the other way round."
        )


def _has_masks(folder: str | os.PathLike[str]) -> bool:
    """Whether a folder is a data set with masks."""
    try:
        return any(is_file(mask) for image in find_test_images(folder) for mask in image.masks)
    except (BadDataError, SettingError):
        return False


def _nothing_fits(name: str, image: LabelledImage) -> str:
    """Say that no map is of an image, by one example of each, and what helps."""
    return (
        f"no path of a map fits that of an image, as {name} and {full_path(image)}: give as `maps` the folder below "
        "which the paths agree, or a `table` (see `write_table`) with a column map, or for a set of maps with a column "
        "name that holds its paths"
    )


def _remarks(maps: Path, data: Source, pairs: Sequence[Pair]) -> tuple[list[str], dict[str, list[str]]]:
    """Say by an example which map was taken for which image, and warn of each category whose maps name another one.

    Args:
        maps: Folder or file of the maps.
        data: Folder of the data set; None for a table.
        pairs: Images and maps that were matched by their paths.

    Returns:
        Notes: the example, unless the paths are equal but for the suffix. Warnings by category.

    """
    of_categories = {pair.image.category: pair for pair in reversed(pairs)}
    known = {*PUBLISHED_CATEGORIES, *of_categories}
    if data is not None:  # categories beside it count, folders around both do not
        around = Path(data).absolute()
        known |= {folder.parent.name for folder in around.parent.glob("*/ground_truth")}
        known -= {*around.parts}
    notes, warnings = [], {}
    for category, pair in sorted(of_categories.items()):
        image = full_path(pair.image)
        folders = [*maps.absolute().parts, *pair.name.replace("\\", "/").split("/")[:-1]]
        example = f"{'' if maps.is_file() else f'{maps.absolute().name}/'}{pair.name} -> {image}"
        same = {as_key(image), pair.image.key} if category in folders else {as_key(image)}
        if as_key(pair.name) not in same:
            notes.append(f"maps were matched by their paths, as {example}")
        named = [folder for folder in folders if folder in known]
        if named and category not in folders:
            warnings[category] = [f"the paths of the maps name {named[-1]}, not {category}, as {example}"]
    return notes[:1], warnings


class EvaluatedPairs(NamedTuple):
    """Images and maps of an earlier evaluation."""

    reader: PairReader
    """Reads them."""
    by_name: dict[str, Pair]
    """The images that have a map, by their names."""


def find_evaluated_pairs(summary: Path) -> EvaluatedPairs:
    """Find the images and maps of an earlier evaluation anew. Relative paths are those of the current folder.

    Args:
        summary: File `summary.json`, which says what was evaluated.

    Returns:
        Images and maps.

    Raises:
        BadDataError: If the file does not say it, or they are no longer there.
        OSError: If the file cannot be opened.

    """
    try:
        settings = json.loads(summary.read_text(encoding="utf-8"))["settings"]
        names = ("maps", "data", "table", "layout", "map_suffix", "normal_folder")
        sources = {name: settings[name] for name in names}
        found = find_pairs(**sources, follow_links=settings["follow_links"])
        mask_rule = MaskRule(settings["mask_threshold"], settings["ignore_index"])
        reader = PairReader(found.maps, settings["resize"], mask_rule)
    except BadDataError:
        raise
    except (ValueError, TypeError, KeyError) as error:
        raise BadDataError(f"{summary} does not lead to images and maps: {error}") from error
    return EvaluatedPairs(reader, {pair.image.name: pair for pair in found.pairs})
