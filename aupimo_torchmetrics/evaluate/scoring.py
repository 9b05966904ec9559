"""Score saved maps category by category.

Maps are read in small batches, so AUPIMO needs the same memory for any number of maps. AUROC, AUPR and AUPRO depend on
every pixel: they keep each score of a category, 4 bytes a pixel, and need several times that while they sort.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import groupby, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torchmetrics.functional.classification import binary_auroc, binary_average_precision

from aupimo_torchmetrics._engine.regions import RegionScores, join_regions, split_by_regions
from aupimo_torchmetrics._engine.sweep import mean_score
from aupimo_torchmetrics._extras import require
from aupimo_torchmetrics._files import existing_folder
from aupimo_torchmetrics._scoring import score_regions
from aupimo_torchmetrics._settings import (
    DEFAULT_FPR_BOUNDS,
    DEFAULT_FPR_LIMIT,
    Layout,
    MetricName,
    SharedFPR,
    check_choice,
)
from aupimo_torchmetrics.evaluate.bad_files import BadFile, BadFileError, BadFilesError
from aupimo_torchmetrics.evaluate.layouts import find_test_images
from aupimo_torchmetrics.evaluate.map_files import open_maps
from aupimo_torchmetrics.evaluate.pairing import Pair, pair_maps
from aupimo_torchmetrics.evaluate.reading import LoadedPair, PairReader, size_of
from aupimo_torchmetrics.evaluate.report import CategoryScores, Evaluation
from aupimo_torchmetrics.metrics import AUPIMO
from aupimo_torchmetrics.results import result_of

if TYPE_CHECKING:
    from tqdm import tqdm

__all__ = ["evaluate"]

BATCH_SIZE = 8
"""Maps that are scored together."""


def evaluate(  # noqa: PLR0917  the settings of the command
    maps: str | os.PathLike[str],
    data: str | os.PathLike[str],
    layout: Layout = "auto",
    fpr_bounds: Sequence[float] = DEFAULT_FPR_BOUNDS,
    num_thresholds: int | None = None,
    metrics: Sequence[MetricName] = ("aupimo",),
    device: str | torch.device = "cpu",
    *,
    shared_fpr: SharedFPR = "mean",
    resize: bool = True,
    skip_bad: bool = False,
) -> Evaluation:
    """Score saved anomaly maps, category by category.

    Args:
        maps: File `asmaps.pt` or folder of maps, see :func:`~aupimo_torchmetrics.evaluate.map_files.open_maps`.
        data: Folder of a data set, see :func:`~aupimo_torchmetrics.evaluate.layouts.find_test_images`.
        layout: Layout of the data set.
        fpr_bounds: Lower and upper bound of the shared FPR; the default is that of the paper.
        num_thresholds: None for the exact score, or how many thresholds to sample, at least 2.
        metrics: What to compute: `"auroc"`, `"aupr"` and `"aupro"` beside `"aupimo"`, which is always computed.
        device: Where to compute, `"cpu"`, `"cuda"` or another device of torch.
        shared_fpr: `"mean"` or the stricter `"max"` of the FPRs of the normal images.
        resize: Whether to resize maps bilinearly to the size of their masks. If not, a map of another size is a bad
            file.
        skip_bad: Whether to skip bad files, which cannot be evaluated, and to evaluate the others.

    Returns:
        Scores and curves of each category of which there is a map, sorted by name, and the bad files that were skipped.

    Raises:
        TypeError: If a setting is of the wrong type.
        ValueError: If a setting is out of its range, `maps` or `data` is not there, or there is no such device.
        BadDataError: If there is no map in `maps` or no test image in `data`, or if `maps` cannot be read.
        BadFilesError: If there are bad files, unless they can be skipped; it names all of them.
        ImportError: If a package of the extra `evaluate` is not installed, or `maps` is a file and the installed torch
            is older than 2.6.

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
        ['a.npy', 'b.npy']
        >>> [round(score, 3) for score in evaluation.categories[0].result.aupimos.tolist()]
        [nan, 0.899]

    """
    require("tqdm", "matplotlib", "scipy", extra="evaluate", needed_by="evaluate")
    from tqdm import tqdm  # noqa: PLC0415

    for name in metrics:
        check_choice("metrics", name, MetricName)
    metric = AUPIMO(num_thresholds, fpr_bounds, shared_fpr=shared_fpr).to(_checked_device(device))
    if not Path(maps).exists():
        raise ValueError(f"Expected `maps` to be a file `asmaps.pt` or a folder of maps, but there is no {maps}.")
    reader = PairReader(open_maps(maps), resize)
    images = find_test_images(existing_folder("data", data), layout)
    pairs, bad_files = pair_maps(reader.maps, images)
    categories = []
    with tqdm(total=len(pairs), unit="map", disable=None) as bar:  # None: no bar unless on a terminal
        for category, group in groupby(pairs, key=lambda pair: pair.image.category):
            bar.set_description(category)
            loaded = _load(group, reader, bad_files, bar)
            scores = _score_category(category, loaded, metric, [name for name in _PIXEL_METRICS if name in metrics])
            categories += [scores] if scores.pairs else []
    if not categories:
        raise BadFilesError(bad_files, "there are no others")
    if bad_files and not skip_bad:
        raise BadFilesError(bad_files, "`skip_bad=True` goes on without them")
    without_maps = sorted({image.category for image in images} - {pair.image.category for pair in pairs})
    return Evaluation(categories, bad_files, reader, without_maps)


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
        bar.update()
        try:
            yield reader.read(pair)
        except BadFileError as error:
            bad_files.append(error.bad_file)


def _score_category(
    category: str, loaded: Iterator[LoadedPair], metric: AUPIMO, pixel_metrics: Sequence[str]
) -> CategoryScores:
    """Score the maps of one category, a batch at a time."""
    metric.reset()
    pairs, parts, resized = [], [], set()
    while batch := list(islice(loaded, BATCH_SIZE)):
        maps = [each.anomaly_map.to(metric.device) for each in batch]
        masks = [each.mask.to(metric.device) for each in batch]
        metric.update(maps, masks)
        if pixel_metrics:
            parts.append(split_by_regions([each.float() for each in maps], masks))
        pairs += [each.pair for each in batch]
        resized |= {(each.map_size, size_of(each.mask)) for each in batch if each.map_size != size_of(each.mask)}
    # The report gives the warnings, each with its category.
    result = result_of(metric._images(), metric.fpr_bounds, metric.num_thresholds, metric.shared_fpr)  # noqa: SLF001
    result = replace(result, paths=[pair.name for pair in pairs])
    regions = join_regions(parts)
    pixel_scores, texts = {}, list(result.warnings)
    for name in pixel_metrics:
        pixel_scores[name], more = _PIXEL_METRICS[name](regions)
        texts += more
    return CategoryScores(category, result, pixel_scores, pairs, resized, warnings=texts)


def _auroc(regions: RegionScores) -> tuple[float, tuple[str, ...]]:
    """Area under the ROC curve of all pixels, and what is to be warned of."""
    if not _has_both_classes(regions):
        return math.nan, ("AUROC is undefined (NaN): all pixels are of one class.",)
    return float(binary_auroc(*_as_probabilities(regions), validate_args=False)), ()


def _aupr(regions: RegionScores) -> tuple[float, tuple[str, ...]]:
    """Average precision of all pixels, and what is to be warned of."""
    if not _has_both_classes(regions):
        return math.nan, ("AUPR is undefined (NaN): all pixels are of one class.",)
    return float(binary_average_precision(*_as_probabilities(regions), validate_args=False)), ()


def _aupro(regions: RegionScores) -> tuple[float, tuple[str, ...]]:
    """Area under the per-region overlap curve, and what is to be warned of."""
    scores, texts = score_regions(regions, DEFAULT_FPR_LIMIT)
    return float(mean_score(scores)), texts


_PIXEL_METRICS = {"auroc": _auroc, "aupr": _aupr, "aupro": _aupro}


def _has_both_classes(regions: RegionScores) -> bool:
    """Whether there are pixels in masks and pixels outside."""
    return len(regions.normal) > 0 and len(regions.in_regions) > 0


def _as_probabilities(regions: RegionScores) -> tuple[Tensor, Tensor]:
    """All scores as float64 in [0, 1], in their order and with their ties, and targets.

    torchmetrics puts scores outside of [0, 1] through a sigmoid, which ties large ones. The bits of float32 numbers,
    read as integers, are in the order of the numbers.
    """
    scores = torch.cat([regions.normal, regions.in_regions]) + 0.0  # there is one zero only
    bits = scores.view(torch.int32)
    ranks = torch.where(bits >= 0, bits, bits ^ torch.iinfo(torch.int32).max)
    target = torch.zeros(len(scores), dtype=torch.int64, device=scores.device)
    target[len(regions.normal) :] = 1
    return (ranks.double() + 2.0**31) / 2.0**32, target
