"""What is evaluated: which maps of which images, by which masks."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from numbers import Integral, Real
from pathlib import Path
from typing import Any, NamedTuple

from aupimo_torchmetrics._errors import BadDataError
from aupimo_torchmetrics._files.writing import existing_folder
from aupimo_torchmetrics._settings import Layout, check_choice
from aupimo_torchmetrics.evaluate.bad_files import BadFile
from aupimo_torchmetrics.evaluate.data.layouts import LabelledImage, find_test_images
from aupimo_torchmetrics.evaluate.data.table import open_table
from aupimo_torchmetrics.evaluate.maps.open import MapFiles, open_maps
from aupimo_torchmetrics.evaluate.masks import MaskRule
from aupimo_torchmetrics.evaluate.pairing import Pair, pair_maps
from aupimo_torchmetrics.evaluate.reading import PairReader

__all__ = ["EvaluatedPairs", "FoundPairs", "find_evaluated_pairs", "find_pairs", "make_mask_rule"]


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
    maps: str | os.PathLike[str] | None,
    data: str | os.PathLike[str] | None,
    table: Any,
    layout: Layout,
    map_suffix: str | None,
    normal_folder: Sequence[str],
    follow_links: bool,
) -> FoundPairs:
    """Find the map of each image of a table, or else of a data set."""
    _check_sources(maps, data, table, layout, map_suffix, normal_folder)
    map_files = None if maps is None else open_maps(maps, map_suffix, follow_links=follow_links)
    if table is not None:
        paired = open_table(table, map_files)
        return FoundPairs(paired.maps, paired.images, paired.pairs, paired.bad_files, paired.notes, {})
    if map_files is None or data is None:
        raise ValueError("Expected `maps` and `data`, or `table`, but got neither.")
    images = find_test_images(data, layout, normal_folder, follow_links=follow_links)
    return FoundPairs(map_files, images, *pair_maps(map_files, images), [], {})


def _check_sources(  # noqa: PLR0917  the settings of the command
    maps: str | os.PathLike[str] | None,
    data: str | os.PathLike[str] | None,
    table: Any,
    layout: Layout,
    map_suffix: str | None,
    normal_folder: Sequence[str],
) -> None:
    """Raise unless there are maps, and a data set or a table, with settings that go together."""
    check_choice("layout", layout, Layout)
    if (data is None) == (table is None):
        found = "neither" if data is None else "both"
        raise ValueError(f"Expected exactly one of `data` and `table`, but got {found}.")
    if table is not None and (layout != "auto" or normal_folder):
        raise ValueError(
            "Expected `layout` and `normal_folder` with `data` only, but got `table`, which says itself which images "
            "are normal."
        )
    if maps is None and table is None:
        raise ValueError("Expected `maps`, as only a `table` can name the map of each image, but got none.")
    if maps is None and map_suffix is not None:
        raise ValueError("Expected `map_suffix` with `maps` only, but got a `table` that names the map of each image.")
    if maps is not None and not Path(maps).exists():
        raise ValueError(f"Expected `maps` to be a file `asmaps.pt` or a folder of maps, but there is no {maps}.")
    if data is not None:
        existing_folder("data", data)
    if isinstance(table, (str, os.PathLike)) and not Path(table).is_file():
        raise ValueError(f"Expected `table` to be a file, but there is no file {table}.")


def make_mask_rule(threshold: float | None, ignore_index: int | None) -> MaskRule:
    """Make the rule for masks; raise unless its values are numbers."""
    if threshold is not None:
        if not isinstance(threshold, Real) or isinstance(threshold, bool):
            raise TypeError(f"Expected `mask_threshold` to be None or a number, but got {type(threshold).__name__}.")
        if not math.isfinite(threshold):
            raise ValueError(f"Expected `mask_threshold` to be None or a finite number, but got {threshold}.")
    if ignore_index is not None and (not isinstance(ignore_index, Integral) or isinstance(ignore_index, bool)):
        raise TypeError(f"Expected `ignore_index` to be None or an integer, but got {type(ignore_index).__name__}.")
    return MaskRule(
        None if threshold is None else float(threshold), None if ignore_index is None else int(ignore_index)
    )


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
        mask_rule = make_mask_rule(settings["mask_threshold"], settings["ignore_index"])
        reader = PairReader(found.maps, settings["resize"], mask_rule)
    except BadDataError:
        raise
    except (ValueError, TypeError, KeyError) as error:
        raise BadDataError(f"{summary} does not lead to images and maps: {error}") from error
    return EvaluatedPairs(reader, {pair.image.name: pair for pair in found.pairs})
