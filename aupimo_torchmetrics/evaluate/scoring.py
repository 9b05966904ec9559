"""Evaluate saved anomaly maps against a data set on disk: AUPIMO, and what it is compared with.

Maps are read lazily and in batches, so that for AUPIMO memory stays flat however many there are. AUROC, AUPR and AUPRO
depend on every pixel: they keep each score of a category, 4 bytes a pixel, and several times that while they sort.

This module needs the extra `evaluate`.
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, islice
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import interpolate
from torchmetrics.functional.classification import binary_auroc, binary_average_precision
from tqdm import tqdm

from aupimo_torchmetrics._files import replacing
from aupimo_torchmetrics._engine.regions import RegionScores, join_regions, part_by_regions
from aupimo_torchmetrics._scoring import aupro_scores
from aupimo_torchmetrics._settings import DEFAULT_FPR_BOUNDS, DEFAULT_FPR_LIMIT, METRICS, check_choice
from aupimo_torchmetrics.evaluate.layouts import LabelledImage, find_test_images
from aupimo_torchmetrics.evaluate.map_files import MapFiles, image_size, open_maps, read_image, read_mask
from aupimo_torchmetrics.metrics import AUPIMO
from aupimo_torchmetrics.plotting import plot_distribution, plot_heatmaps, plot_pimo_curves, representative_images
from aupimo_torchmetrics.results import AUPIMOResult, PIMOResult

BATCH_SIZE = 8
MAX_LEADING_FOLDERS = 2
"""How many folders may stand in the path of a map before what the data set has too, as `MVTec/bottle/`."""

Size = tuple[int, int]


class Fault(NamedTuple):
    """A file that cannot be evaluated, and why."""

    path: str
    reason: str


class FaultError(ValueError):
    """A single file cannot be evaluated."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.fault = Fault(path, reason)


class BadDataError(ValueError):
    """Files cannot be evaluated, all of them in one message."""

    def __init__(self, faults: Sequence[Fault], remedy: str) -> None:
        lines = "".join(f"\n  {fault.path}: {fault.reason}" for fault in faults)
        super().__init__(f"{len(faults)} files cannot be evaluated ({remedy}):{lines}")
        self.faults = list(faults)


class Pair(NamedTuple):
    """A test image and its map."""

    image: LabelledImage
    place: int
    """Place of the map in its file or folder."""
    name: str
    """Path of the map's image as the file of the maps gives it, or of the map."""


class LoadedPair(NamedTuple):
    """What was read of a test image and its map."""

    pair: Pair
    anomaly_map: Tensor
    """(H, W) floating, of the size of the mask."""
    mask: Tensor
    """(H, W) bool."""
    map_size: Size
    """Height and width of the map before it was resized."""


class PairReader(NamedTuple):
    """Reads maps with their masks."""

    maps: MapFiles
    is_resizing: bool

    def read(self, pair: Pair) -> LoadedPair:
        """Read one map and its mask.

        Raises:
            FaultError: If one of the files cannot be evaluated.

        """
        anomaly_map = _blame(pair.name, self.maps.read, pair.place)
        size = _size(anomaly_map)
        image = pair.image
        if image.masks:
            mask = _blame(str(image.masks[0]), read_mask, image.masks)
            if image.has_defect and not bool(mask.any()):
                raise FaultError(str(image.masks[0]), "the mask of an image with a defect is empty")
        else:
            mask_size = _blame(str(image.path), image_size, image.path) if self.is_resizing else size
            mask = torch.zeros(mask_size, dtype=torch.bool)
        if anomaly_map.shape != mask.shape and not self.is_resizing:
            shapes = f"the map is {tuple(anomaly_map.shape)}, its mask {tuple(mask.shape)}"
            raise FaultError(pair.name, f"{shapes}; without --no-resize it would be resized")
        return LoadedPair(pair, _resized(anomaly_map, mask.shape), mask, size)


@dataclass
class CategoryScores:
    """Scores of one category.

    Attributes:
        category: Its name.
        result: AUPIMO of its images, with their paths.
        curves: PIMO curves of its images, around the FPR bounds.
        pixel_scores: AUROC, AUPR and AUPRO by name, as far as they were asked for.
        pairs: Images and maps in the order of the result.
        resized: Sizes of maps and of their masks where these differ.
        doubts: What the metrics warned of.

    """

    category: str
    result: AUPIMOResult
    curves: PIMOResult
    pixel_scores: dict[str, float]
    pairs: list[Pair]
    resized: set[tuple[Size, Size]]
    doubts: list[str]

    def values(self) -> dict[str, float]:
        """Return the scores by the names of their metrics."""
        return {"aupimo": self.result.mean, **self.pixel_scores}


@dataclass
class Evaluation:
    """Scores of one or more categories.

    Attributes:
        categories: Scores of each category.
        faults: Files that were passed over.
        reader: What reads the maps.
        without_maps: Categories of the data set of which there is no map.

    """

    categories: list[CategoryScores]
    faults: list[Fault]
    reader: PairReader
    without_maps: list[str]

    def summary(self) -> str:
        """Return a table of the categories and their mean, and how the scores came about."""
        metrics = list(self.categories[0].values())
        width = max(10, *(len(scores.category) + 2 for scores in self.categories))
        lines = [f"{'category':<{width}}{'normal':>8}{'defect':>8}" + "".join(f"{name.upper():>9}" for name in metrics)]
        for scores in self.categories:
            num_normal = int(scores.result.aupimos.isnan().sum())
            head = f"{scores.category:<{width}}{num_normal:>8}{len(scores.pairs) - num_normal:>8}"
            lines.append(head + "".join(f"{value:>9.4f}" for value in scores.values().values()))
        if len(self.categories) > 1:
            columns = [[scores.values()[name] for scores in self.categories] for name in metrics]
            means = (math.fsum(column) / len(column) for column in columns)
            lines.append(f"{'mean':<{width + 16}}" + "".join(f"{mean:>9.4f}" for mean in means))
        lines += ["", self.categories[0].result.protocol, self._resizing()]
        lines += [f"not evaluated, as there is no map: {', '.join(self.without_maps)}"] if self.without_maps else []
        lines += [f"warning: {scores.category}: {doubt}" for scores in self.categories for doubt in scores.doubts]
        lines += [f"passed over: {fault.path}: {fault.reason}" for fault in self.faults]
        return "\n".join(lines)

    def _resizing(self) -> str:
        """Line that says how maps were brought to the size of their masks."""
        resized = sorted(set().union(*(scores.resized for scores in self.categories)))
        if not resized:
            return "Maps have the size of their masks."
        shown = ", ".join(f"{old[0]} x {old[1]} to {new[0]} x {new[1]}" for old, new in resized[:3])
        return f"Maps were resized bilinearly to the size of their masks: {shown}{', ...' if resized[3:] else ''}."

    def save(self, out: Path, *, has_folders: bool = True, has_heatmaps: bool = False) -> None:
        """Write the scores of each category in the official places and formats, and pictures of them.

        Args:
            out: Folder for `CATEGORY/aupimo/aupimos.json`, `curves.pt`, `distribution.png` and `curves.png`, and for
                `CATEGORY/auroc.json` and its like. It is made if need be.
            has_folders: Whether each category has a folder of its own.
            has_heatmaps: Whether to draw `heatmaps.png` of the images that stand for the distribution, too.

        """
        for scores in self.categories:
            folder = out / scores.category if has_folders else out
            (folder / "aupimo").mkdir(parents=True, exist_ok=True)
            scores.result.save(folder / "aupimo" / "aupimos.json")
            scores.curves.save(folder / "aupimo" / "curves.pt", scores.result.shared_fpr)
            for name, value in scores.pixel_scores.items():
                with replacing(folder / f"{name}.json") as unfinished:
                    unfinished.write_text(json.dumps({"value": value}, indent=4), encoding="utf-8")
            if not bool(scores.result.aupimos.isnan().all()):
                for name, figure in self._pictures(scores, has_heatmaps).items():
                    with replacing(folder / "aupimo" / f"{name}.png") as unfinished:
                        figure.savefig(unfinished, dpi=100, format="png")

    def _pictures(self, scores: CategoryScores, has_heatmaps: bool) -> dict[str, Any]:
        """Draw the figures of a category, by the names of their files."""
        from matplotlib.figure import Figure  # noqa: PLC0415

        figures = {"distribution": Figure((7.5, 2.4), layout="constrained")}
        plot_distribution(scores.result, figures["distribution"].subplots())
        figures["curves"] = Figure((7.5, 5.5), layout="constrained")
        plot_pimo_curves(scores.curves, scores.result, ax=figures["curves"].subplots())
        if has_heatmaps:
            roles = representative_images(scores.result)
            loaded = [self.reader.read(scores.pairs[place]) for place in roles]
            maps, masks = [each.anomaly_map for each in loaded], [each.mask for each in loaded]
            images = [_resized(read_image(each.pair.image.path), each.mask.shape) for each in loaded]
            figures["heatmaps"] = Figure((2.2 * len(roles) + 1, 4.6), layout="constrained")
            captions = [
                f"{role}\n{PurePosixPath(each.pair.image.key).parent.name}"
                for each, role in zip(loaded, roles.values(), strict=True)
            ]
            plot_heatmaps(images, maps, scores.result, masks, list(roles), captions, figures["heatmaps"])
        return figures


def evaluate(  # noqa: PLR0917  the settings of the command
    maps: Path,
    data: Path,
    layout: str = "auto",
    fpr_bounds: Sequence[float] = DEFAULT_FPR_BOUNDS,
    num_thresholds: int | None = None,
    metrics: Sequence[str] = ("aupimo",),
    device: str = "cpu",
    *,
    shared_fpr: str = "mean",
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
        check_choice("metrics", name, METRICS)
    metric = AUPIMO(num_thresholds, fpr_bounds, shared_fpr=shared_fpr).to(device)
    reader = PairReader(open_maps(maps), is_resizing)
    images = find_test_images(data, layout)
    pairs, faults = pair_maps(reader.maps, images)
    categories = []
    with tqdm(total=len(pairs), unit="map", disable=None) as bar:  # a bar is for terminals
        for category, group in groupby(pairs, key=lambda pair: pair.image.category):
            bar.set_description(category)
            loaded = _load(group, reader, faults, bar)
            scores = _score_category(category, loaded, metric, [name for name in METRICS[1:] if name in metrics])
            categories += [scores] if scores.pairs else []
    if faults and not is_skipping:
        raise BadDataError(faults, "--skip-bad goes on without them")
    if not categories:
        raise BadDataError(faults, "and no other is there")
    without_maps = sorted({image.category for image in images} - {pair.image.category for pair in pairs})
    return Evaluation(categories, faults, reader, without_maps)


def pair_maps(maps: MapFiles, images: Sequence[LabelledImage]) -> tuple[list[Pair], list[Fault]]:
    """Find the map of each test image, and say which images and maps are alone and which masks are missing.

    A file of maps is often of one category of a collection, so categories without any map are not asked for.

    Args:
        maps: Maps, whose paths may begin with folders that the data set's paths have not.
        images: Test images, sorted.

    Returns:
        Pairs in the order of the images, and what cannot be paired.

    """
    keys = maps.keys()
    image_keys = {image.key for image in images}
    num_matches = [
        sum(_without_leading(key, num_folders) in image_keys for key in keys)
        for num_folders in range(MAX_LEADING_FOLDERS + 1)
    ]
    num_folders = num_matches.index(max(num_matches))
    places: dict[str, int] = {}
    faults = []
    for place, (key, name) in enumerate(zip(keys, maps.names, strict=True)):
        image_key = _without_leading(key, num_folders)
        if image_key in places:
            faults.append(Fault(name, "a second map of the same image"))
        elif image_key in image_keys:
            places[image_key] = place
        else:
            faults.append(Fault(name, "a map without a test image"))
    pairs = []
    with_maps = {image.category for image in images if image.key in places}
    for image in images:
        if image.category not in with_maps:
            continue
        missing = [mask for mask in image.masks if not mask.is_file()]
        if image.key not in places:
            faults.append(Fault(str(image.path), "a test image without a map"))
        elif missing:
            faults.append(Fault(str(image.path), f"its mask {missing[0]} is missing"))
        else:
            pairs.append(Pair(image, places[image.key], maps.names[places[image.key]]))
    return pairs, faults


def _without_leading(key: PurePosixPath, num_folders: int) -> str:
    """Key of an image without the first folders of a path."""
    return PurePosixPath(*key.parts[num_folders:]).as_posix()


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
            parts.append(part_by_regions([each.float() for each in maps], masks))
        pairs += [each.pair for each in batch]
        resized |= {(each.map_size, _size(each.mask)) for each in batch if each.map_size != _size(each.mask)}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = metric.result()
        regions = join_regions(parts)
        pixel_scores = {name: _PIXEL_METRICS[name](regions) for name in pixel_metrics}
    doubts = list(dict.fromkeys(str(each.message) for each in caught))
    result.paths = [pair.name for pair in pairs]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what leaves the score undefined leaves the curves undefined
        curves = metric.curves()
    return CategoryScores(category, result, curves, pixel_scores, pairs, resized, doubts)


def _auroc(regions: RegionScores) -> float:
    """Area under the ROC curve of all pixels."""
    return float(binary_auroc(*_as_probabilities(regions), validate_args=False))


def _aupr(regions: RegionScores) -> float:
    """Average precision of all pixels."""
    return float(binary_average_precision(*_as_probabilities(regions), validate_args=False))


def _aupro(regions: RegionScores) -> float:
    """Area under the per-region overlap curve."""
    return float(aupro_scores(regions, DEFAULT_FPR_LIMIT).nanmean())


_PIXEL_METRICS = {"auroc": _auroc, "aupr": _aupr, "aupro": _aupro}


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


def _resized(image: Tensor, size: Sequence[int]) -> Tensor:
    """Bring a map (H, W) or image (C, H, W) to a size, bilinearly as the official package does."""
    if image.shape[-2:] == torch.Size(size):
        return image
    images = image.reshape(1, -1, *image.shape[-2:])
    images = images.float() if images.dtype in {torch.float16, torch.bfloat16} else images
    resized = interpolate(images, tuple(size), mode="bilinear")[0]
    return resized.reshape(*image.shape[:-2], *size)


def _size(image: Tensor) -> Size:
    """Height and width of a map or mask."""
    return image.shape[0], image.shape[1]


def _blame(path: str, read: Any, *args: Any) -> Any:
    """Read something, and blame its file if that fails."""
    try:
        return read(*args)
    except ValueError as error:
        raise FaultError(path, str(error)) from error
