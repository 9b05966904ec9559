"""Thresholds, one for each category: chosen from maps of normal images, kept in a file, and applied to new maps.

`thresholds.json` holds under `thresholds` a number for each category, `{"thresholds": {"bottle": 0.5}}`, and beside it
how each was chosen. The category "" stands for all: for maps that lie in one folder, or a number that was given.
"""

from __future__ import annotations

import json
import math
import os
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from numbers import Real
from operator import attrgetter, itemgetter
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import torch
from torch import Tensor

from aupimo_torchmetrics._engine.decision import num_images_needed
from aupimo_torchmetrics._errors import BadDataError, SettingError
from aupimo_torchmetrics._extras import progress
from aupimo_torchmetrics._files.writing import write_text
from aupimo_torchmetrics._paths import TEST_FOLDERS, as_name
from aupimo_torchmetrics._settings import Layout, SharedFPR
from aupimo_torchmetrics._tables import json_text, text_table
from aupimo_torchmetrics._version import __version__
from aupimo_torchmetrics.evaluate.bad_files import BadFilesError, naming
from aupimo_torchmetrics.evaluate.data.folders import NORMAL_WORDS
from aupimo_torchmetrics.evaluate.find import FoundPairs, find_pairs
from aupimo_torchmetrics.evaluate.maps.open import MapFiles, open_maps
from aupimo_torchmetrics.evaluate.masks import MaskRule
from aupimo_torchmetrics.evaluate.reading import IGNORED, PairReader
from aupimo_torchmetrics.metrics import AUPIMO
from aupimo_torchmetrics.results import AUPIMOResult, OperatingPoint

__all__ = ["ChosenThreshold", "Thresholds", "choose_thresholds"]

ALL = ""
"""The category that stands for all."""
NO_CATEGORIES = NORMAL_WORDS | TEST_FOLDERS | {"train", "validation", "val", "test_private", "test_private_mixed"}
"""Folders, in any case, that are no category: of kinds of images, and of splits."""
MIN_PIXELS = 10
"""A threshold that fewer normal pixels reach is a matter of chance."""
HIGHEST_FPR = 1e-2
"""FPRs of alarm thresholds are known up to this one, and often further."""


class ChosenThreshold(NamedTuple):
    """A threshold, and what it does to the normal images that it was chosen from."""

    category: str
    """Empty if it is for all."""
    num_images: int
    """Normal images."""
    point: OperatingPoint
    """What the threshold does to them."""
    warnings: list[str]


@dataclass(frozen=True)
class Thresholds:
    """A threshold for each category, in the unit of the anomaly maps. A pixel is called anomalous iff it reaches it.

    Attributes:
        values: Thresholds by category. "" stands for every category that is not named.
        rule: What they promise, a sentence; empty if they were not chosen here.
        chosen: How each was chosen, as far as it was.

    Example:
        >>> from aupimo_torchmetrics.evaluate import Thresholds
        >>> thresholds = Thresholds({"bottle": 0.5, "cable": 0.25})
        >>> thresholds.of("cable")
        0.25

    """

    values: Mapping[str, float]
    rule: str = ""
    chosen: Sequence[ChosenThreshold] = field(default=())

    @classmethod
    def read(cls, threshold: float | str | os.PathLike[str] | Thresholds) -> Thresholds:
        """Return thresholds of a number for all categories, of a file, or as they are.

        Raises:
            TypeError: If it is none of these.
            ValueError: If the number is NaN, or there is no such file.
            BadDataError: If the file does not hold thresholds.

        """
        if isinstance(threshold, Thresholds):
            return threshold
        if isinstance(threshold, (str, os.PathLike)):
            return cls.load(threshold)
        if isinstance(threshold, bool) or not isinstance(threshold, Real):
            raise TypeError(f"Expected `threshold` to be a number or a file, but got {type(threshold).__name__}.")
        if math.isnan(threshold):
            raise SettingError("Expected `threshold` to be a number, but got NaN.")
        return cls({ALL: float(threshold)})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Thresholds:
        """Read the thresholds in a file that `save` wrote, or in any JSON file `{"thresholds": {CATEGORY: NUMBER}}`.

        Raises:
            ValueError: If there is no such file.
            BadDataError: If it does not hold thresholds.

        """
        if not Path(path).is_file():
            raise SettingError(f"Expected `threshold` to be a number or a file, but there is no file {path}.")
        try:
            values = json.loads(Path(path).read_text(encoding="utf-8"))["thresholds"]
            numbers = [each for each in values.values() if isinstance(each, Real) and not isinstance(each, bool)]
            are_numbers = len(numbers) == len(values) > 0 and all(map(math.isfinite, numbers))
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise BadDataError(f'Expected {path} to hold {{"thresholds": {{CATEGORY: NUMBER}}}} in JSON.') from error
        if not are_numbers:
            raise BadDataError(
                f"Expected {path} to hold a number for each category under thresholds, but got {values}."
            )
        return cls({as_name(category): float(value) for category, value in values.items()})

    def of(self, category: str) -> float:
        """Return the threshold of a category.

        Raises:
            BadDataError: If there is none.

        """
        if category not in self.values and ALL not in self.values:
            known = ", ".join(self.values)
            raise BadDataError(f"Expected a threshold of {category!r}, but the thresholds are those of {known}.")
        return self.values[category if category in self.values else ALL]

    def summary(self) -> str:
        """Return a table of the thresholds and of what they do to the normal images, what they promise, and warnings.

        Returns:
            Lines of text.

        """
        rows = [["category", "images", "threshold", "FPR", "95 % interval", "alarms"]]
        for category, number, point, _ in self.chosen:
            low, high = point.shared_fpr_interval
            interval = "" if math.isnan(low) else f"{low:.2g} to {high:.2g}"
            alarms = f"{round(number * point.share_of_normal_images_with_alarm)} of {number}"
            rates = [f"{point.threshold:.6g}", f"{point.shared_fpr:.3g}", interval, alarms]
            rows.append([category or "(all)", str(number), *rates])
        lines = [text_table(rows, "<>>>>>"), "", self.rule]
        lines += [f"warning: {each.category or '(all)'}: {text}" for each in self.chosen for text in each.warnings]
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Return what the file holds: `thresholds`, `rule`, `version`, and under `chosen` what is known of each."""
        return {
            "thresholds": dict(self.values),
            "rule": self.rule,
            "version": __version__,
            "chosen": [
                {
                    "category": category,
                    "num_normal": number,
                    "threshold": point.threshold,
                    "shared_fpr": point.shared_fpr,
                    "shared_fpr_interval": list(point.shared_fpr_interval),
                    "share_of_normal_images_with_alarm": point.share_of_normal_images_with_alarm,
                    "warnings": texts,
                }
                for category, number, point, texts in self.chosen
            ],
        }

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the thresholds to a JSON file. An existing file is replaced only when the new one is complete.

        Raises:
            OSError: If the file cannot be written.

        """
        write_text(Path(path), f"{json_text(self.to_dict())}\n")


def choose_thresholds(  # noqa: PLR0917  the settings of the command
    maps: str | os.PathLike[str] | None = None,
    fpr: float | None = None,
    alarms: float | None = None,
    data: str | os.PathLike[str] | None = None,
    table: Any = None,
    layout: Layout = "auto",
    *,
    shared_fpr: SharedFPR = "mean",
    resize: bool = True,
    mask_threshold: float | None = None,
    ignore_index: int | None = None,
    split: str | Sequence[str] = (),
    map_suffix: str | None = None,
    normal_folder: str | Sequence[str] = (),
    follow_links: bool = False,
    quiet: bool = False,
) -> Thresholds:
    """Choose a threshold from anomaly maps of normal images, category by category.

    Args:
        maps: File `asmaps.pt` or folder of maps. Without `data` and `table` all of them are of normal images, and lie
            in one folder, or in one folder for each category. They are used in their own size.
        fpr: Highest shared FPR in (0, 1): the share of the normal pixels that may be called anomalous.
        alarms: Or the share of new normal images in (0, 1) that may raise an alarm, with any pixel that is called
            anomalous.
        data: Folder of a data set: only maps of its normal test images count.
        table: Table of images: likewise.
        layout: Layout of the data set.
        shared_fpr: `"mean"` or the stricter `"max"` of the FPRs of the normal images.
        resize: Whether maps are resized bilinearly to the size of their images, with `data` or `table`.
        mask_threshold: Values of masks above it are a defect, where the masks do not say clearly what is one.
        ignore_index: Value of the mask pixels that do not count.
        split: Names of folders: only maps below one of them count, as `"validation"`. Not with `data` or `table`.
        map_suffix: Only files of `maps` with this ending are maps, as `".tiff"`.
        normal_folder: Names of folders of normal images in `data`, beside `good` and its like.
        follow_links: Whether links may lead out of `maps` and `data`.
        quiet: Whether to show no progress bar. There is none either unless standard error is a terminal.

    Returns:
        Thresholds by category, with what they do to the images that they were chosen from, and warnings.

    Raises:
        ValueError: If not exactly one of `fpr` and `alarms` is given, one is outside (0, 1), or other settings are out
            of their range.
        BadDataError: If there is no map, if maps lie in folders that do not say their category, if a map cannot be
            read, or if a category has too few normal images for `alarms`.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> import numpy as np
        >>> from aupimo_torchmetrics.evaluate import choose_thresholds
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for number in range(3):
        ...         np.save(Path(folder, f"{number}.npy"), np.arange(16.0).reshape(4, 4) + number)
        ...     thresholds = choose_thresholds(folder, fpr=0.25)
        >>> thresholds.of("tile")  # 12 of the 48 pixels have a score of 13 or more
        13.0

    """
    if (fpr is None) == (alarms is None):
        raise SettingError("Expected exactly one of `fpr` and `alarms`, but got both or neither.")
    name, share = ("alarms", alarms) if fpr is None else ("fpr", fpr)
    if share is None or not 0 < share < 1:
        raise SettingError(f"Expected `{name}` to be in (0, 1), but got {share}.")
    if data is None and table is None:
        if maps is None:
            raise SettingError("Expected `maps` of normal images, or a `table` that names maps, but got neither.")
        loaded = _maps_alone(maps_below(split, open_maps(maps, map_suffix, follow_links=follow_links)), quiet=quiet)
    else:
        if split:
            raise SettingError("Expected `split` with `maps` alone, but got a data set, which says its test images.")
        folders = (normal_folder,) if isinstance(normal_folder, str) else tuple(normal_folder)
        found = find_pairs(maps, data, table, layout, map_suffix, folders, follow_links)
        reader = PairReader(found.maps, resize, MaskRule(mask_threshold, ignore_index))
        loaded = _normal_pairs(found, reader, quiet=quiet)
    highest_fpr = HIGHEST_FPR if fpr is None else fpr
    metric = AUPIMO(fpr_bounds=(highest_fpr / 10, highest_fpr), shared_fpr=shared_fpr, ignore_index=IGNORED)
    results, num_pixels = {}, Counter[str]()
    for category, of_category in groupby(loaded, itemgetter(0)):
        metric.reset()
        for _, anomaly_map, target in of_category:
            metric.update(anomaly_map[None], target[None])
            num_pixels[category] += int((target != IGNORED).sum())
        with warnings.catch_warnings():  # of scores, which nobody asked for
            warnings.simplefilter("ignore")
            results[category] = metric.result()
    if not results:
        raise BadDataError("Expected maps of normal images, but found none.")
    if fpr is None:
        _check_enough(results, share)
        rule = (
            f"A new normal image raises an alarm with a probability of at most {share:g} (split conformal prediction)."
        )
    else:
        kind = "maximum" if shared_fpr == "max" else "mean"
        rule = (
            f"At most {fpr:g} of the normal pixels are called anomalous ({kind} of the images), if new ones are alike."
        )
    chosen = [_choose(category, result, fpr, alarms, num_pixels[category]) for category, result in results.items()]
    return Thresholds({each.category: each.point.threshold for each in chosen}, rule, chosen)


def maps_below(split: str | Sequence[str], maps: MapFiles) -> MapFiles:
    """Maps that lie below a folder of one of these names; all of them if there is no name.

    Raises:
        BadDataError: If there is none.

    """
    names = {as_name(name).casefold() for name in ([split] if isinstance(split, str) else split)}
    if not names:
        return maps
    folders = [as_name(name).replace("\\", "/").casefold().split("/")[:-1] for name in maps.names]
    indices = [index for index, each in enumerate(folders) if names.intersection(each)]
    if not indices:
        raise BadDataError(f"Expected maps below a folder {' or '.join(sorted(names))}, but found {maps.names[0]}.")
    return MapFiles([maps.names[index] for index in indices], lambda index: maps.read(indices[index]))


def _maps_alone(maps: MapFiles, *, quiet: bool) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Yield category, map (H, W) float32 and empty mask of maps of normal images, category after category."""
    categories = _categories_of(maps.names)
    order = sorted(range(len(categories)), key=categories.__getitem__)
    with progress(order, "reading", "map", quiet=quiet) as shown:
        for index in shown:
            with naming(maps.names[index]):
                anomaly_map = maps.read(index).float()
            yield categories[index], anomaly_map, torch.zeros_like(anomaly_map, dtype=torch.bool)


def _categories_of(names: Sequence[str]) -> list[str]:
    """Category of each map: none if all lie in one folder, or else the first of their folders that differ.

    Raises:
        BadDataError: If the maps of a category lie in several folders, or these folders are no categories.

    """
    parts = [PurePosixPath(as_name(name).replace("\\", "/")).parts for name in names]
    folders = {each[:-1] for each in parts}
    if len(folders) == 1:
        return [ALL for _ in names]
    start = len(os.path.commonprefix([*folders]))  # noqa: RUF071  of folders, not letters
    categories = {folder: folder[start] if len(folder) > start else "." for folder in folders}
    shown = " and ".join("/".join(folder) or "." for folder in sorted(folders)[:2])
    if len({*categories.values()}) < len(folders):
        problem = "each category in one folder"
    elif {category.casefold() for category in categories.values()} & {*NO_CATEGORIES, "."}:
        problem = "folders that are categories"
    else:
        return [categories[each[:-1]] for each in parts]
    raise BadDataError(
        f"Expected `maps` of normal images alone, in {problem}, but got such in {shown}. Give the folder of those of "
        "normal images, or say by `data` or `table` which these are."
    )


def _normal_pairs(found: FoundPairs, reader: PairReader, *, quiet: bool) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Yield category, map (H, W) float32 and target of normal images of a data set, category after category."""
    if found.bad_files:
        raise BadFilesError(found.bad_files, "or give the maps of normal images alone, without a data set")
    pairs = sorted((pair for pair in found.pairs if not pair.image.has_defect), key=attrgetter("image.category"))
    with progress(pairs, "reading", "map", quiet=quiet) as shown:
        for pair in shown:
            loaded = reader.read(pair)
            if not bool(loaded.mask.any()):
                yield pair.image.category, loaded.anomaly_map, loaded.target


def _choose(
    category: str, result: AUPIMOResult, fpr: float | None, alarms: float | None, num_pixels: int
) -> ChosenThreshold:
    """Choose the threshold of a category from the result of its normal images."""
    threshold = result.threshold_at(fpr) if fpr is not None else result.alarm_threshold(alarms or 0)
    if math.isnan(threshold):
        raise BadDataError(
            f"Expected finite scores, but too many of the normal images are infinite: {category or 'maps'}"
        )
    point = result.operating_point(threshold=threshold)
    num_images, texts = len(result.aupimos), list(point.warnings)
    if fpr is not None and fpr * num_pixels < MIN_PIXELS:
        needed = math.ceil(num_images * MIN_PIXELS / (fpr * num_pixels))
        texts.append(
            f"fewer than {MIN_PIXELS} of the {num_pixels:,} normal pixels reach a threshold of FPR {fpr:g}: it is a "
            f"matter of chance. Give {needed} normal images of this size, or a larger `fpr`."
        )
    elif fpr is not None and point.shared_fpr == 0:
        texts.append(
            f"no normal pixel reaches this threshold: more than {fpr:g} of them share the highest score. Please save "
            "scores that are not clamped or rounded."
        )
    return ChosenThreshold(category, num_images, point, texts)


def _check_enough(results: Mapping[str, AUPIMOResult], alarms: float) -> None:
    """Raise unless each category has as many normal images as the share needs."""
    needed = num_images_needed(alarms)
    few = [f"{category or 'maps'} has {len(result.aupimos)}" for category, result in results.items()]
    few = [text for text, result in zip(few, results.values(), strict=True) if len(result.aupimos) < needed]
    if few:
        raise BadDataError(
            f"Expected {needed} normal images or more in each category for `alarms={alarms:g}`, but {', '.join(few)}. "
            "No threshold keeps that promise by fewer. Give more normal images, or a larger `alarms`."
        )
