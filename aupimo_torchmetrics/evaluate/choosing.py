"""Choose a threshold for each category from anomaly maps of normal images."""

from __future__ import annotations

import math
import os
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from operator import attrgetter
from pathlib import Path, PurePosixPath
from typing import Any

from aupimo_torchmetrics._engine.decision import num_images_needed
from aupimo_torchmetrics._errors import BadDataError, SettingError
from aupimo_torchmetrics._extras import progress
from aupimo_torchmetrics._paths import TEST_FOLDERS, as_name
from aupimo_torchmetrics._settings import Layout, SharedFPR
from aupimo_torchmetrics.evaluate.bad_files import BadFile, BadFilesError, read_all
from aupimo_torchmetrics.evaluate.data.folders import NORMAL_WORDS, LabelledImage
from aupimo_torchmetrics.evaluate.data.layouts import SPLITS
from aupimo_torchmetrics.evaluate.find import find_pairs
from aupimo_torchmetrics.evaluate.maps.open import MapFiles, existing_maps, open_maps
from aupimo_torchmetrics.evaluate.masks import MaskRule
from aupimo_torchmetrics.evaluate.pairing import Pair
from aupimo_torchmetrics.evaluate.reading import IGNORED, LoadedPair, PairReader
from aupimo_torchmetrics.evaluate.thresholds import ALL, ChosenThreshold, Thresholds
from aupimo_torchmetrics.metrics import AUPIMO
from aupimo_torchmetrics.results import AUPIMOResult

__all__ = ["choose_thresholds"]

NO_CATEGORIES = NORMAL_WORDS | TEST_FOLDERS | {*SPLITS}
"""Folders, in any case, that are no category: of kinds of images, and of splits."""
MIN_PIXELS = 10
"""A threshold that fewer normal pixels reach is a matter of chance."""
BAD_FILES_REMEDY = "mend or remove them, or give the maps of normal images alone"
HIGHEST_FPR = 1e-2
"""FPRs of alarm thresholds are known up to this one, and often further."""


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
        resize: Whether maps are resized bilinearly to the size of their images. This, and how masks are read, is only
            for `data` and `table`.
        mask_threshold: Values of masks above it are a defect, where the masks do not say clearly what is one.
        ignore_index: Value of the mask pixels that do not count.
        split: Names of folders: only maps below one of them count, as `"validation"`.
        map_suffix: Only files of `maps` with this ending are maps, as `".tiff"`.
        normal_folder: Names of folders of normal images in `data`, beside `good` and its like.
        follow_links: Whether links may lead out of `maps` and `data`.
        quiet: Whether to show no progress bar. There is none either unless standard error is a terminal.

    Returns:
        Thresholds by category, with what they do to the images that they were chosen from, and warnings.

    Raises:
        ValueError: If not exactly one of `fpr` and `alarms` is given, one is outside (0, 1), or other settings are out
            of their range.
        BadDataError: If there is no map, if maps lie in folders that do not say their category, if maps cannot be read,
            which are all named, or if a category has too few normal images for `alarms`.

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
    bad_files: list[BadFile] = []
    splits, folders = ((each,) if isinstance(each, str) else tuple(each) for each in (split, normal_folder))
    mask_rule = MaskRule(mask_threshold, ignore_index)
    if data is None and table is None:
        of_data = {"layout": layout != "auto", "normal_folder": len(folders) > 0, "resize": not resize}
        of_data |= {"mask_threshold": mask_threshold is not None, "ignore_index": ignore_index is not None}
        opened = open_maps(_checked_alone(maps, of_data), map_suffix, splits, follow_links=follow_links)
        pairs, reader = _pairs_alone(opened), PairReader(opened, resize=False)
    else:
        found = find_pairs(maps, data, table, layout, map_suffix, folders, follow_links, splits)
        if found.bad_files:
            raise BadFilesError(found.bad_files, BAD_FILES_REMEDY)
        pairs, reader = found.pairs, PairReader(found.maps, resize, mask_rule)
    highest_fpr = HIGHEST_FPR if fpr is None else fpr
    metric = AUPIMO(fpr_bounds=(highest_fpr / 10, highest_fpr), shared_fpr=shared_fpr, ignore_index=IGNORED)
    results, num_pixels = {}, Counter[str]()
    loaded = _normal_images(pairs, reader, bad_files, quiet=quiet)
    for category, of_category in groupby(loaded, attrgetter("pair.image.category")):
        metric.reset()
        for each in of_category:
            metric.update(each.anomaly_map[None], each.target[None])
            num_pixels[category] += int(each.is_counted.sum())
        with warnings.catch_warnings():  # of scores, which nobody asked for
            warnings.simplefilter("ignore")
            results[category] = metric.result()
    if bad_files:
        raise BadFilesError(bad_files, BAD_FILES_REMEDY)
    if not results:
        raise BadDataError(
            "Expected maps of normal images, but found none. If values of masks say which pixels do not count, give "
            "`ignore_index`."
        )
    if fpr is None:
        _check_enough(results, share)
    chosen = [_choose(category, result, fpr, share, num_pixels[category]) for category, result in results.items()]
    return Thresholds({each.category: each.point.threshold for each in chosen}, _rule(fpr, share, shared_fpr), chosen)


def _checked_alone(maps: str | os.PathLike[str] | None, of_data: Mapping[str, bool]) -> Path:
    """Return where maps are; raise if they are not there, or if a setting of images or masks, which are not, is given.

    Args:
        maps: File or folder of maps.
        of_data: Whether each setting of images and masks is given.

    """
    if maps is None:
        raise SettingError("Expected `maps` of normal images, or a `table` that names maps, but got neither.")
    name = next(filter(of_data.get, of_data), None)
    if name is not None:
        raise SettingError(f"Expected `{name}` with `data` or `table` only, but got `maps` alone, which have no masks.")
    return existing_maps("maps", maps)


def _rule(fpr: float | None, share: float, shared_fpr: SharedFPR) -> str:
    """What thresholds promise."""
    if fpr is None:
        return f"A new normal image raises an alarm with probability {share:g} at most (split conformal prediction)."
    kind = "maximum" if shared_fpr == "max" else "mean"
    return f"At most {fpr:g} of the normal pixels are called anomalous ({kind} of the images), if new ones are alike."


def _pairs_alone(maps: MapFiles) -> list[Pair]:
    """Maps of normal images, each with an image that is not on disk."""
    named = zip(maps.names, _categories_of(maps.names), strict=True)
    images = (LabelledImage(name, category, None, (), has_defect=False) for name, category in named)
    return [Pair(image, index, image.name) for index, image in enumerate(images)]


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
        "normal images, name it as `split`, or say by `data` or `table` which these are."
    )


def _normal_images(
    pairs: Sequence[Pair], reader: PairReader, bad_files: list[BadFile], *, quiet: bool
) -> Iterator[LoadedPair]:
    """Yield normal images, category after category."""
    normal = sorted((pair for pair in pairs if not pair.image.has_defect), key=attrgetter("image.category"))
    with progress(normal, "reading", "map", quiet=quiet) as shown:
        yield from (each for each in read_all(shown, reader.read, bad_files) if not bool(each.mask.any()))


def _choose(category: str, result: AUPIMOResult, fpr: float | None, share: float, num_pixels: int) -> ChosenThreshold:
    """Choose the threshold of a category from the result of its normal images."""
    highest = result.max_scores
    threshold = result.threshold_at(fpr) if fpr is not None else result.alarm_threshold(share)
    if math.isnan(threshold) or highest is None:
        raise BadDataError(
            f"Expected finite scores, but too many of the normal images of {category or 'the maps'} are +inf for any "
            "threshold. Find their cause, or give a larger share."
        )
    point = result.operating_point(threshold=threshold)
    # Where the FPR is not asked for, only that it is not known is said of it.
    texts = list(point.warnings) if fpr is not None or math.isnan(point.shared_fpr) else []
    num_images = len(result.aupimos)
    if fpr is not None and fpr * num_pixels < MIN_PIXELS:
        needed = math.ceil(num_images * MIN_PIXELS / (fpr * num_pixels))
        texts.append(
            f"fewer than {MIN_PIXELS} of the {num_pixels:,} normal pixels reach a threshold of FPR {fpr:g}: it is a "
            f"matter of chance. Give {needed} normal images of this size, or a larger `fpr`."
        )
    elif fpr is not None and point.shared_fpr == 0:
        least = result.operating_point(threshold=float(highest.max())).shared_fpr
        texts.append(
            f"no normal pixel reaches this threshold: the highest score alone has an FPR of {least:.3g}. Clamped or "
            "rounded scores do that, and small images."
        )
    num_tied = int((highest == highest.max()).sum())
    if fpr is None and threshold > float(highest.max()) and num_tied > 1:
        texts.append(
            f"no normal image reaches this threshold: {num_tied} of them share the highest score. If scores are "
            "clamped or rounded, no defect may reach it either: please save them as they are."
        )
    return ChosenThreshold(category, num_images, point, texts)


def _check_enough(results: Mapping[str, AUPIMOResult], alarms: float) -> None:
    """Raise unless each category has as many normal images as the share needs."""
    needed = num_images_needed(alarms)
    numbers = {category or "maps": len(result.aupimos) for category, result in results.items()}
    few = ", ".join(f"{name} has {number}" for name, number in numbers.items() if number < needed)
    if few:
        raise BadDataError(
            f"Expected {needed} normal images or more in each category for `alarms={alarms:g}`, but {few}. "
            "No threshold keeps that promise by fewer. Give more normal images, or a larger `alarms`."
        )
