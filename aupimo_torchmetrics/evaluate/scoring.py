"""Score saved maps category by category.

Maps are read in small batches, so AUPIMO needs the same memory for any number of maps. Metrics of all pixels keep each
score of a category, 4 bytes a pixel, or with `num_bins` a histogram.
"""

from __future__ import annotations

import math
import os
import warnings
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby, islice
from operator import attrgetter
from typing import Any

import pandas as pd
import torch

from aupimo_torchmetrics._engine.image_scores import mean_of_top
from aupimo_torchmetrics._errors import SettingError
from aupimo_torchmetrics._extras import progress, require
from aupimo_torchmetrics._settings import (
    DEFAULT_FPR_BOUNDS,
    DEFAULT_FPR_LIMIT,
    Layout,
    MetricName,
    RowsBy,
    SharedFPR,
    check_choice,
    check_image_score,
)
from aupimo_torchmetrics.evaluate.at_threshold import count_pixels
from aupimo_torchmetrics.evaluate.bad_files import BadFilesError, check_bad_files, read_all
from aupimo_torchmetrics.evaluate.counting import ScoreSample, count_images
from aupimo_torchmetrics.evaluate.evaluation import CategoryScores, Evaluation
from aupimo_torchmetrics.evaluate.find import find_pairs
from aupimo_torchmetrics.evaluate.image_warnings import ImageWarnings
from aupimo_torchmetrics.evaluate.masks import MaskRule
from aupimo_torchmetrics.evaluate.other_metrics import OtherMetrics
from aupimo_torchmetrics.evaluate.pairing import Pair
from aupimo_torchmetrics.evaluate.reading import IGNORED, LoadedPair, PairReader, Size, size_of
from aupimo_torchmetrics.evaluate.slider import sample_scores, slider_thresholds
from aupimo_torchmetrics.evaluate.thresholds import Thresholds
from aupimo_torchmetrics.metrics import AUPIMO

__all__ = ["evaluate"]

BATCH_SIZE = 8
"""Maps that are scored together."""

NORMAL_BUFFER = 2**20
"""Normal scores to keep, 4 MiB: so many that resamples without the images with most false positives are known, too."""

KNOWN = ["is_anomalous", "mask_pixels", "aupimo", "tpr_at_lower", "tpr_at_upper"]
"""What the result knows of each image."""


def evaluate(  # noqa: PLR0917  the settings of the command
    maps: str | os.PathLike[str] | None = None,
    data: str | os.PathLike[str] | None = None,
    layout: Layout = "auto",
    fpr_bounds: Sequence[float] = DEFAULT_FPR_BOUNDS,
    num_thresholds: int | None = None,
    metrics: Sequence[MetricName] = ("aupimo",),
    device: str | torch.device = "cpu",
    *,
    shared_fpr: SharedFPR = "mean",
    fpr_limit: float = DEFAULT_FPR_LIMIT,
    num_bins: int | None = None,
    threshold: float | str | os.PathLike[str] | Thresholds | None = None,
    resize: bool = True,
    size: int | Sequence[int] | None = None,
    image_score: str = "max",
    by: RowsBy = "category",
    intervals: bool = False,
    skip_bad: bool = False,
    table: str | os.PathLike[str] | pd.DataFrame | None = None,
    mask_threshold: float | None = None,
    ignore_index: int | None = None,
    split: str | Sequence[str] = (),
    map_suffix: str | None = None,
    normal_folder: str | Sequence[str] = (),
    follow_links: bool = False,
    quiet: bool = False,
) -> Evaluation:
    """Score saved anomaly maps, category by category.

    Args:
        maps: File `asmaps.pt` or folder of maps, see `open_maps`. None if `table` names the map of each image.
        data: Folder of a data set, see `find_test_images`. None with `table`.
        layout: Layout of the data set.
        fpr_bounds: Lower and upper bound of the shared FPR; the default is that of the paper.
        num_thresholds: None for the exact score, or how many thresholds to sample, at least 2.
        metrics: What to compute beside `"aupimo"`, which is always computed: of all pixels `"auroc"`, `"aupr"` (average
            precision), `"f1_max"` and `"aupro"`; of the regions of an annotation, as in MVTec LOCO, `"au_spro"`; of the
            images `"image_auroc"`, `"image_aupr"` and `"image_f1_max"`, by the column `score` of the table, or else by
            `image_score`.
        device: Where to compute, `"cpu"`, `"cuda"` or another device of torch.
        shared_fpr: `"mean"` or the stricter `"max"` of the FPRs of the normal images.
        fpr_limit: FPR up to which AUPRO and AU-sPRO are computed, in (0, 1].
        num_bins: None for exact metrics of all pixels, which keep every score of a category. Or the bins of a histogram
            that is kept instead, a power of two, and gives certain bounds; 262144 (2**18) needs a few megabytes.
        threshold: A number for all categories, or a file `thresholds.json`, as `aupimo threshold` and
            `Thresholds.save` write it: what it does to the images is counted. None for no threshold.
        resize: Whether maps are resized bilinearly to the size of their masks. If not, a map of another size is a bad
            file.
        size: Height and width to resize all maps (bilinearly) and masks (to the nearest pixel) to, or one number for
            both, as many papers do with 256. None for the size of the masks.
        image_score: Score of an image, for metrics of images, where no table gives it: the `"max"` or `"mean"` of its
            map, or the mean of its highest pixels, as `"top_1%"`.
        by: `"defect"` to compute each metric of each type of defect, too, with all normal images. For metrics of all
            pixels, maps are read again.
        intervals: Whether to compute an interval of each score (95 %), which says where it may lie on other images of
            the same kind: of 1,000 resamples of the normal and of the anomalous images, or of groups of them, which the
            column `group` of a table names.
        skip_bad: Whether to skip bad files, which cannot be evaluated, and to evaluate the others. Each category that
            loses images has to keep normal and anomalous ones.
        table: Table of images with their masks, instead of `data`: a CSV file or a pandas DataFrame.
        mask_threshold: Values of masks above it are a defect, where the masks do not say clearly what is one.
        ignore_index: Value of the mask pixels that do not count.
        split: Names of folders: only maps below one of them count, as `"test_public"`.
        map_suffix: Only files of `maps` with this ending are maps, as `".tiff"`.
        normal_folder: Names of folders of normal images in `data`, beside `good` and its like.
        follow_links: Whether links may lead out of `maps` and `data`.
        quiet: Whether to show no progress bar. There is none either unless standard error is a terminal.

    Returns:
        Scores and curves of each category of which there is a map, sorted by name, and the bad files that were skipped.

    Raises:
        TypeError: If a setting is of the wrong type.
        ValueError: If a setting is out of its range, `maps`, `data` or `table` is not there, not exactly one of `data`
            and `table` is given, settings do not go together, or there is no such device.
        BadDataError: If there is no map in `maps` or no test image in `data`, if `maps`, `table` or the file of
            `threshold` cannot be read, or if there is no threshold of a category.
        BadFilesError: If there are bad files, unless they can be skipped. It names all that are seen from names and
            places, before any file is read; if there are none, all others.
        ImportError: If a package of the extra `evaluate` is not installed, or there is a file of torch in `maps`
            and the installed torch is older than 2.6.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> import numpy as np
        >>> from PIL import Image
        >>> from aupimo_torchmetrics.evaluate import evaluate
        >>> scores = np.arange(16.0).reshape(4, 4)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for kind in ("images", "masks", "maps"):
        ...         Path(folder, kind).mkdir()
        ...     for name, highest_normal in (("a", 15), ("b", 12)):
        ...         Image.new("L", (4, 4)).save(Path(folder, f"images/{name}.png"))
        ...         Image.fromarray(scores > highest_normal).save(Path(folder, f"masks/{name}.png"))
        ...         np.save(Path(folder, f"maps/{name}.npy"), scores)
        ...     evaluation = evaluate(f"{folder}/maps", folder, fpr_bounds=(0.1, 0.5))
        >>> evaluation.categories[0].result.paths
        ['images/a.png', 'images/b.png']
        >>> [round(score, 3) for score in evaluation.categories[0].result.aupimos.tolist()]
        [nan, 0.899]

    """
    settings = locals().copy()
    del settings["quiet"]
    require("matplotlib", "pandas", "scipy", "tqdm", extra="evaluate", needed_by="evaluate")
    for name in ("normal_folder", "split"):
        settings[name] = (settings[name],) if isinstance(settings[name], str) else tuple(settings[name])
    settings["size"] = one_size = _checked_size(size, resize=resize)
    top_share = check_image_score(image_score)
    check_choice("by", by, RowsBy)
    mask_rule = MaskRule(mask_threshold, ignore_index)
    metric = AUPIMO(
        num_thresholds, fpr_bounds, shared_fpr=shared_fpr, ignore_index=IGNORED, normal_buffer=NORMAL_BUFFER
    )
    device = _checked_device(device)
    others = OtherMetrics(metrics, fpr_limit, num_bins, device)
    if others.has_regions and size is not None:
        raise SettingError("Expected `size` or the metric `au_spro`, which is of pixels of the masks, but got both.")
    thresholds = None if threshold is None else Thresholds.read(threshold)
    folders, splits = settings["normal_folder"], settings["split"]
    found = find_pairs(maps, data, table, layout, map_suffix, folders, follow_links, splits)
    if found.bad_files and not skip_bad:  # known before any map is read
        remedy = "`skip_bad=True` goes on without them, as long as each category keeps normal and anomalous images"
        raise BadFilesError(found.bad_files, remedy)
    reader, bad_files = PairReader(found.maps, resize, mask_rule, others.has_regions, one_size), list(found.bad_files)
    metric, categories, samples = metric.to(device), list[CategoryScores](), defaultdict[str, ScoreSample](ScoreSample)
    by_category = attrgetter("image.category")
    pairs = sorted(found.pairs, key=by_category)
    threshold_of = {} if thresholds is None else {name: thresholds.of(name) for name in map(by_category, pairs)}
    with progress(pairs, "scoring", "map", quiet=quiet) as shown:
        for category, of_category in groupby(shown, key=by_category):
            loaded, number = read_all(of_category, reader.read, bad_files), threshold_of.get(category)
            scores = _score(category, loaded, metric, others, number, top_share, samples[category])
            if scores is not None:
                categories.append(scores)
    skipped = check_bad_files(bad_files, found, categories, skip_bad=skip_bad)
    if others.has_maps:
        _count(categories, samples, reader, quiet=quiet)
    if by == "defect":
        _score_defects(categories, reader, others, quiet=quiet)
    for scores in categories:
        scores.num_skipped = skipped[scores.category]
        scores.warnings = [*found.warnings.get(scores.category, []), *scores.warnings]
    without_maps = sorted({image.category for image in found.images} - set(skipped))
    texts = {name: _as_text(setting) for name, setting in settings.items()}
    evaluation = Evaluation(categories, bad_files, reader, without_maps, found.notes, texts)
    if intervals:
        evaluation.find_intervals()
    return evaluation


def _checked_size(size: int | Sequence[int] | None, *, resize: bool) -> Size | None:
    """Return height and width; raise unless they are two whole numbers above 0, and maps are to be resized at all."""
    if size is None:
        return None
    pair = (size,) if isinstance(size, int) else tuple(size)
    pair = pair * 2 if len(pair) == 1 else pair
    if len(pair) != 2 or not all(isinstance(each, int) and each > 0 for each in pair):
        raise SettingError(f"Expected `size` to be one or two whole numbers above 0, but got {size}.")
    if not resize:
        raise SettingError("Expected `size` or `resize=False`, but got both.")
    return pair


def _as_text(setting: Any) -> Any:
    """A setting as JSON can hold it: paths and devices as texts, and a table in memory by its type."""
    if isinstance(setting, (list, tuple)):
        return list(setting)
    if isinstance(setting, Thresholds):
        return dict(setting.values)
    if isinstance(setting, pd.DataFrame):
        return "DataFrame"
    return setting if setting is None or isinstance(setting, (int, float)) else str(setting)


def _checked_device(device: str | torch.device) -> torch.device:
    """Return a device; raise unless torch can compute on it."""
    try:
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError) as error:  # AssertionError: a torch that was built without the device
        found = f"{str(device)!r}: {str(error).splitlines()[0]}"
        raise SettingError(f"Expected `device` to be a device of this machine, but got {found}") from error
    return torch.device(device)


def _score(  # noqa: PLR0917
    category: str,
    loaded: Iterator[LoadedPair],
    metric: AUPIMO,
    others: OtherMetrics,
    threshold: float | None,
    top_share: float,
    sample: ScoreSample,
) -> CategoryScores | None:
    """Score the maps of one category, a batch at a time; None if there is none.

    Args:
        category: Name of the category.
        loaded: Its maps and masks.
        metric: AUPIMO, which is reset.
        others: The metrics beside it; likewise.
        threshold: What it does is counted; None for no threshold.
        top_share: Share of the highest pixels of a map whose mean is the score of its image, see `check_image_score`.
        sample: Takes some scores of each map, if metrics of all pixels are computed.

    """
    metric.reset()
    others.reset()
    scored: list[Pair] = []
    facts, sizes, normal_samples, image_warnings = [], set(), [], ImageWarnings()
    while batch := list(islice(loaded, BATCH_SIZE)):
        maps = [each.anomaly_map.to(metric.device) for each in batch]
        metric.update(maps, [each.target.to(metric.device) for each in batch])
        others.update(batch)
        for each in batch:
            scored.append(each.pair)
            facts.append(_facts(each, threshold, top_share))
            sizes.add((size_of(each.stored_map), size_of(each.mask)))
            image_warnings.look_at(each)
            if others.has_maps:
                sample.add(each)
            if not bool(each.mask.any()):
                normal_samples.append(sample_scores(each))
    if not scored:
        return None
    with warnings.catch_warnings():  # the summary says them, with the category
        warnings.simplefilter("ignore")
        result = replace(metric.result(), paths=[pair.image.name for pair in scored])
    images = [
        {"path": pair.image.name, "category": category, "defect": pair.image.defect or ""}
        | ({} if pair.image.group is None else {"group": pair.image.group})
        | {**known, **of_map}
        for pair, known, of_map in zip(scored, result.to_dataframe()[KNOWN].to_dict("records"), facts, strict=True)
    ]
    other_scores = others.scores(images)
    of_others = (text for each in other_scores.values() for text in each.warnings)
    texts = dict.fromkeys([*image_warnings.texts(), *result.warnings, *of_others])
    resized = {(old, new) for old, new in sizes if old != new}
    steps = slider_thresholds(result, normal_samples)
    scores = CategoryScores(category, result, other_scores, scored, images, resized, list(texts), steps, threshold)
    scores.warnings += filter(None, [scores.unit_warning()])
    return scores


def _count(
    categories: Sequence[CategoryScores], samples: Mapping[str, ScoreSample], reader: PairReader, *, quiet: bool
) -> None:
    """Count the pixels of each image, from which metrics of resampled images follow; maps are read again."""
    pairs = [pair for scores in categories for pair in scores.pairs]
    with progress(pairs, "counting", "map", quiet=quiet) as shown:
        loaded = map(reader.read, shown)
        for scores in categories:
            of_category, edges = islice(loaded, len(scores.pairs)), samples[scores.category].edges()
            scores.pixels = count_images(of_category, edges, has_regions="aupro" in scores.other_scores)


def _score_defects(
    categories: Sequence[CategoryScores], reader: PairReader, others: OtherMetrics, *, quiet: bool
) -> None:
    """Compute the metrics beside AUPIMO of the normal images and those of each type of defect."""
    types = [(scores, row["defect"]) for scores in categories for row in scores.defects()]
    with progress(types, "scoring types of defects", "type", quiet=quiet) as shown:
        for scores, defect in shown:
            others.reset()
            images = []
            for image, pair in zip(scores.images, scores.pairs, strict=True):
                if not image["is_anomalous"] or image["defect"] == defect:
                    images.append(image)
                    others.update([reader.read(pair)] if others.has_maps else [])
            scores.of_defects[defect] = {name: each.value for name, each in others.scores(images).items()}


def _facts(loaded: LoadedPair, threshold: float | None, top_share: float) -> dict[str, float]:
    """Count the pixels that are not ignored, score the image by them, and count what a threshold finds."""
    scores = loaded.anomaly_map if loaded.ignored is None else loaded.anomaly_map[~loaded.ignored]
    in_mask = loaded.anomaly_map[loaded.mask]
    given = loaded.pair.image.score
    facts = {
        "num_pixels": scores.numel(),
        "mask_share": in_mask.numel() / scores.numel(),
        "max_score": float(scores.max()),
        "image_score": float(mean_of_top(scores.view(1, -1), top_share)) if given is None else given,
        "mask_max_score": float(in_mask.max()) if in_mask.numel() else math.nan,
    }
    return facts if threshold is None else facts | count_pixels(loaded, threshold)
