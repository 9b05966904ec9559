"""Score saved maps category by category.

Maps are read in small batches, so AUPIMO needs the same memory for any number of maps. Metrics of all pixels keep each
score of a category, 4 bytes a pixel, or with bounded memory a histogram.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import groupby, islice
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from aupimo_torchmetrics._extras import require
from aupimo_torchmetrics._settings import (
    DEFAULT_FPR_BOUNDS,
    DEFAULT_FPR_LIMIT,
    Layout,
    MetricName,
    SharedFPR,
    check_choice,
    check_fpr_limit,
)
from aupimo_torchmetrics.evaluate.bad_files import BadFile, BadFileError
from aupimo_torchmetrics.evaluate.category import CategoryScores, MapFacts
from aupimo_torchmetrics.evaluate.data.layouts import LabelledImage
from aupimo_torchmetrics.evaluate.evaluation import Evaluation
from aupimo_torchmetrics.evaluate.image_warnings import ImageWarnings
from aupimo_torchmetrics.evaluate.other_metrics import PIXEL_METRICS, PixelScorer, memory_hint, score_images
from aupimo_torchmetrics.evaluate.pairing import Pair
from aupimo_torchmetrics.evaluate.reading import LoadedPair, PairReader, size_of
from aupimo_torchmetrics.evaluate.skipping import check_bad_files, skipped_images
from aupimo_torchmetrics.evaluate.sources import find_pairs, make_mask_rule
from aupimo_torchmetrics.metrics import AUPIMO
from aupimo_torchmetrics.results import result_of

if TYPE_CHECKING:
    import pandas as pd
    from tqdm import tqdm

__all__ = ["evaluate"]

BATCH_SIZE = 8
"""Maps that are scored together."""

IGNORED = 255
"""Stands in a target for a pixel that does not count."""


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
    bounded_memory: bool = False,
    resize: bool = True,
    skip_bad: bool = False,
    table: str | os.PathLike[str] | pd.DataFrame | None = None,
    mask_threshold: float | None = None,
    ignore_index: int | None = None,
    map_suffix: str | None = None,
    normal_folder: str | Sequence[str] = (),
    follow_links: bool = False,
    quiet: bool = False,
) -> Evaluation:
    """Score saved anomaly maps, category by category.

    Args:
        maps: File `asmaps.pt` or folder of maps, see `aupimo_torchmetrics.evaluate.open_maps`. None if `table` names
            the map of each image.
        data: Folder of a data set, see `aupimo_torchmetrics.evaluate.find_test_images`. None with `table`.
        layout: Layout of the data set.
        fpr_bounds: Lower and upper bound of the shared FPR; the default is that of the paper.
        num_thresholds: None for the exact score, or how many thresholds to sample, at least 2.
        metrics: What to compute beside `"aupimo"`, which is always computed: of all pixels `"auroc"`, `"aupr"` (average
            precision), `"f1_max"` and `"aupro"`; of the images `"image_auroc"`, `"image_aupr"` and `"image_f1_max"`, by
            the column `score` of the table, or else by the highest score of each map.
        device: Where to compute, `"cpu"`, `"cuda"` or another device of torch.
        shared_fpr: `"mean"` or the stricter `"max"` of the FPRs of the normal images.
        fpr_limit: FPR up to which AUPRO is computed, in (0, 1].
        bounded_memory: Whether metrics of all pixels keep a histogram of a few megabytes, which gives certain bounds,
            instead of all scores of a category.
        resize: Whether to resize maps bilinearly to the size of their masks. If not, a map of another size is a bad
            file.
        skip_bad: Whether to skip bad files, which cannot be evaluated, and to evaluate the others. All normal or all
            anomalous images of a category are never skipped.
        table: Table of images with their masks, instead of `data`: a CSV file or a pandas DataFrame.
        mask_threshold: Values of masks above it are a defect, where the masks do not say clearly what is one.
        ignore_index: Value of the mask pixels that do not count.
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
        BadDataError: If there is no map in `maps` or no test image in `data`, or if `maps` or `table` cannot be read.
        BadFilesError: If there are bad files, unless they can be skipped; it names all of them.
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
    require("tqdm", "matplotlib", "scipy", extra="evaluate", needed_by="evaluate")
    from tqdm import tqdm  # noqa: PLC0415

    normal_folder = (normal_folder,) if isinstance(normal_folder, str) else tuple(normal_folder)
    settings = {
        "maps": maps, "data": data, "table": table, "layout": layout, "fpr_bounds": fpr_bounds,
        "num_thresholds": num_thresholds, "metrics": metrics, "device": device, "shared_fpr": shared_fpr,
        "fpr_limit": fpr_limit, "bounded_memory": bounded_memory, "resize": resize, "skip_bad": skip_bad,
        "mask_threshold": mask_threshold, "ignore_index": ignore_index,
        "map_suffix": map_suffix, "normal_folder": normal_folder, "follow_links": follow_links,
    }  # fmt: skip
    for name in metrics:
        check_choice("metrics", name, MetricName)
    check_fpr_limit(fpr_limit, "fpr_limit")
    mask_rule = make_mask_rule(mask_threshold, ignore_index)
    metric = AUPIMO(num_thresholds, fpr_bounds, shared_fpr=shared_fpr, ignore_index=IGNORED).to(_checked_device(device))
    found = find_pairs(maps, data, table, layout, map_suffix, normal_folder, follow_links)
    reader = PairReader(found.maps, resize, mask_rule)
    categories, bad_files = [], list(found.bad_files)
    pairs = sorted(found.pairs, key=lambda pair: pair.image.category)
    with tqdm(total=len(pairs), unit="map", disable=quiet or None) as bar:  # None: no bar unless on a terminal
        for category, group in groupby(pairs, key=lambda pair: pair.image.category):
            bar.set_description(category)
            group_pairs = list(group)
            loaded = _load(group_pairs, reader, bad_files, bar)
            if not (quiet or bounded_memory) and set(PIXEL_METRICS) & set(metrics):
                loaded = _with_memory_hint(loaded, category, len(group_pairs), bar)
            scorer = PixelScorer(
                metrics, fpr_limit, bounded_memory=bounded_memory, ignore_index=IGNORED, device=metric.device
            )
            scores = _score_category(category, loaded, metric, scorer, metrics, resize=resize)
            categories += [scores] if scores.pairs else []
    skipped = skipped_images(found.images, pairs, categories, bad_files)
    check_bad_files(bad_files, skipped, categories, skip_bad=skip_bad)
    for scores in categories:
        scores.num_skipped = len(skipped[scores.category])
        scores.warnings = [*found.warnings.get(scores.category, []), *scores.warnings]
    without_maps = sorted({image.category for image in found.images} - set(skipped))
    return Evaluation(categories, bad_files, reader, without_maps, found.notes, _as_texts(settings))


def _as_texts(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings as JSON can hold them: texts for paths, a device, and a table in memory."""
    plain = {}
    for name, value in settings.items():
        is_plain = value is None or isinstance(value, (bool, int, float, str))
        plain[name] = value if is_plain else list(value) if isinstance(value, (list, tuple)) else str(value)
        if name == "table" and not isinstance(value, (str, os.PathLike, type(None))):
            plain[name] = type(value).__name__
    return plain


def _checked_device(device: str | torch.device) -> torch.device:
    """Return a device; raise unless torch can compute on it."""
    try:
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError) as error:  # AssertionError: a torch that was built without the device
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"Expected `device` to be a device of this machine, but got {str(device)!r}: {reason}"
        ) from error
    return torch.device(device)


def _load(pairs: Iterable[Pair], reader: PairReader, bad_files: list[BadFile], bar: tqdm[Any]) -> Iterator[LoadedPair]:
    """Read pairs one by one, and add those that cannot be evaluated to the bad files."""
    for pair in pairs:
        try:
            loaded = reader.read(pair)
        except BadFileError as error:
            bad_files.append(error.bad_file)
        else:
            if loaded.ignored is not None and bool(loaded.ignored.all()):
                bad_files.append(BadFile(str(pair.image.masks[0]), "every pixel of the mask is ignored"))
            else:
                yield loaded
        bar.update()


def _with_memory_hint(
    loaded: Iterator[LoadedPair], category: str, num_images: int, bar: tqdm[Any]
) -> Iterator[LoadedPair]:
    """Write a hint to standard error if the pixels of a category, as many as in its first map each, are too many."""
    for index, each in enumerate(loaded):
        hint = memory_hint(category, num_images * each.mask.numel()) if index == 0 else ""
        if hint:
            bar.write(hint, file=sys.stderr)
        yield each


def _score_category(
    category: str,
    loaded: Iterator[LoadedPair],
    metric: AUPIMO,
    scorer: PixelScorer,
    metrics: Collection[str],
    *,
    resize: bool,
) -> CategoryScores:
    """Score the maps of one category, a batch at a time."""
    metric.reset()
    pairs, facts, resized = [], [], set()
    image_warnings = ImageWarnings(resize=resize)
    while batch := list(islice(loaded, BATCH_SIZE)):
        maps = [each.anomaly_map.to(metric.device) for each in batch]
        targets = [_target(each).to(metric.device) for each in batch]
        metric.update(maps, targets)
        scorer.update(maps, targets)
        pairs += [each.pair for each in batch]
        facts += [_facts(each) for each in batch]
        for each in batch:
            image_warnings.look_at(each)
        resized |= {(each.map_size, size_of(each.mask)) for each in batch if each.map_size != size_of(each.mask)}
    # The report gives the warnings, each with its category.
    result = result_of(metric._images(), metric.fpr_bounds, metric.num_thresholds, metric.shared_fpr)  # noqa: SLF001
    result = replace(result, paths=[pair.image.name for pair in pairs])
    are_anomalous = [] if result.image_classes is None else (result.image_classes > 0).tolist()
    image_scores = [_score_of(pair.image, each) for pair, each in zip(pairs, facts, strict=True)]
    other_scores = {**scorer.scores(), **score_images(metrics, image_scores, are_anomalous)}
    of_others = (text for each in other_scores.values() for text in each.warnings)
    texts = dict.fromkeys([*image_warnings.texts(), *result.warnings, *of_others])
    return CategoryScores(category, result, other_scores, pairs, facts, resized, warnings=list(texts))


def _score_of(image: LabelledImage, facts: MapFacts) -> float:
    """Score of an image: that of its table, or the highest score of its map."""
    return facts.max_score if image.score is None else image.score


def _target(loaded: LoadedPair) -> Tensor:
    """The mask (H, W) bool, or if pixels are ignored uint8, with `IGNORED` for these."""
    return loaded.mask if loaded.ignored is None else loaded.mask.to(torch.uint8).masked_fill(loaded.ignored, IGNORED)


def _facts(loaded: LoadedPair) -> MapFacts:
    """Count the pixels of a map that are not ignored, and find the highest score of these."""
    scores = loaded.anomaly_map if loaded.ignored is None else loaded.anomaly_map[~loaded.ignored]
    return MapFacts(scores.numel(), float(scores.max()))
