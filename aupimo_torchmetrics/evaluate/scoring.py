"""Score saved maps category by category.

Maps are read lazily and in batches, so that for AUPIMO memory stays flat however many there are. AUROC, AUPR and AUPRO
depend on every pixel: they keep each score of a category, 4 bytes a pixel, and several times that while they sort.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import groupby, islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torchmetrics.functional.classification import binary_auroc, binary_average_precision
from tqdm import tqdm

from aupimo_torchmetrics._engine.regions import RegionScores, join_regions, split_by_regions
from aupimo_torchmetrics._engine.sweep import mean_score
from aupimo_torchmetrics._scoring import score_regions
from aupimo_torchmetrics._settings import (
    DEFAULT_FPR_BOUNDS,
    DEFAULT_FPR_LIMIT,
    Layout,
    MetricName,
    SharedFPR,
    check_choice,
)
from aupimo_torchmetrics.evaluate.layouts import find_test_images
from aupimo_torchmetrics.evaluate.map_files import open_maps
from aupimo_torchmetrics.evaluate.pairing import (
    BadDataError,
    Fault,
    FaultError,
    LoadedPair,
    Pair,
    PairReader,
    pair_maps,
    size_of,
)
from aupimo_torchmetrics.evaluate.report import CategoryScores, Evaluation
from aupimo_torchmetrics.metrics import AUPIMO
from aupimo_torchmetrics.results import result_of

BATCH_SIZE = 8


def evaluate(  # noqa: PLR0917  the settings of the command
    maps: Path,
    data: Path,
    layout: Layout = "auto",
    fpr_bounds: Sequence[float] = DEFAULT_FPR_BOUNDS,
    num_thresholds: int | None = None,
    metrics: Sequence[MetricName] = ("aupimo",),
    device: str = "cpu",
    *,
    shared_fpr: SharedFPR = "mean",
    is_resizing: bool = True,
    is_skipping: bool = False,
) -> Evaluation:
    """Score saved anomaly maps, category by category.

    Args:
        maps: File `asmaps.pt` or folder of maps, see :func:`~aupimo_torchmetrics.evaluate.map_files.open_maps`.
        data: Folder of a data set, see :func:`~aupimo_torchmetrics.evaluate.layouts.find_test_images`.
        layout: Layout of the data set.
        fpr_bounds: Bounds of the shared FPR.
        num_thresholds: None for the exact score, or how many thresholds to sample.
        metrics: What to compute: `"auroc"`, `"aupr"` and `"aupro"` beside `"aupimo"`, which is always computed.
        device: Where to compute.
        shared_fpr: `"mean"` or the stricter `"max"` of the FPRs of the normal images.
        is_resizing: Whether to resize maps bilinearly to the size of their masks; if not, another size is a fault.
        is_skipping: Whether to go on without files that cannot be evaluated.

    Returns:
        Scores and curves of each category.

    Raises:
        ValueError: If there is no map or no test image, no map belongs to an image, or a setting is out of its range.
        BadDataError: If files cannot be evaluated; its message names all of them.

    """
    for name in metrics:
        check_choice("metrics", name, MetricName)
    metric = AUPIMO(num_thresholds, fpr_bounds, shared_fpr=shared_fpr).to(device)
    reader = PairReader(open_maps(maps), is_resizing)
    images = find_test_images(data, layout)
    pairs, faults = pair_maps(reader.maps, images)
    categories = []
    with tqdm(total=len(pairs), unit="map", disable=None) as bar:  # a bar is for terminals
        for category, group in groupby(pairs, key=lambda pair: pair.image.category):
            bar.set_description(category)
            loaded = _load(group, reader, faults, bar)
            scores = _score_category(category, loaded, metric, [name for name in _PIXEL_METRICS if name in metrics])
            categories += [scores] if scores.pairs else []
    if faults and not is_skipping:
        raise BadDataError(faults, "--skip-bad goes on without them")
    if not categories:
        raise BadDataError(faults, "and no other is there")
    without_maps = sorted({image.category for image in images} - {pair.image.category for pair in pairs})
    return Evaluation(categories, faults, reader, without_maps)


def _load(pairs: Iterable[Pair], reader: PairReader, faults: list[Fault], bar: tqdm[Any]) -> Iterator[LoadedPair]:
    """Read pairs one by one, and note those that cannot be evaluated."""
    for pair in pairs:
        bar.update()
        try:
            yield reader.read(pair)
        except FaultError as error:
            faults.append(error.fault)


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
    return CategoryScores(category, result, pixel_scores, pairs, resized, doubts=texts)


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
