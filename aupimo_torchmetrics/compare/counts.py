"""What was counted of the images of models, from their files: all in the order of the images of the first model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch

from aupimo_torchmetrics._engine.resampling import Units
from aupimo_torchmetrics._errors import BadDataError
from aupimo_torchmetrics._files.counts import COUNTS_FILE, CountedImages, read_counts
from aupimo_torchmetrics._files.results import json_path, read_scores
from aupimo_torchmetrics._metric_counts import MetricCounts, counts_of_metric, counts_of_result, interval_note
from aupimo_torchmetrics._settings import MatchedBy, MetricName
from aupimo_torchmetrics._warnings import MIN_CARRYING
from aupimo_torchmetrics.compare.find import run_name
from aupimo_torchmetrics.results import AUPIMOResult
from aupimo_torchmetrics.statistics._matching import align_scores, match_images
from aupimo_torchmetrics.statistics.paired import ResampledModels, resample_models

__all__ = ["CategoryFacts", "how_sure", "one_protocol", "only_for_these", "resample_category"]

MAX_LISTED = 3
"""How many results a text names."""


class CategoryFacts(NamedTuple):
    """What the counts of the images of a category say of its models."""

    models: ResampledModels
    matched_by: MatchedBy
    """What said which images are the same."""
    units: Units
    num_carrying: dict[str, float]
    """Number of normal images that carry the FPR of AUPIMO of each model; NaN if it is not known."""
    protocol: str
    """How the metric was computed."""
    of_seeds: dict[str, dict[str, float]]
    """Value of each seed, `[model][seed]`; nothing for a model without seeds."""
    num_mask_pixels: dict[str, int]
    """Number of mask pixels of each model, for metrics of pixels; empty for others."""


def resample_category(
    files: Mapping[str, Mapping[str, Path]], metric: MetricName
) -> tuple[CategoryFacts | None, list[str]]:
    """Compute the models on resamples of the images of one category.

    Args:
        files: Result files `[model][seed]`.
        metric: Which metric.

    Returns:
        What comes out, or None and the names of the models, as `MODEL` or `MODEL/SEED`, of which there are per-image
        scores of AUPIMO only.

    Raises:
        BadDataError: If a file cannot be read or lacks the metric, or if models are not of the same images or groups,
            or not computed alike.

    """
    paths = {run_name(model, seed): path for model, seeds in files.items() for seed, path in seeds.items()}
    matched_by: MatchedBy = "path"
    if metric == "aupimo":
        found, matched_by = _of_aupimo(paths)
        if scores_only := [name for name in paths if name not in found]:
            return None, scores_only
    else:
        found = _of_other(paths, metric)
    units = _common_units(found)
    by_seed = {
        model: {seed: replace(found[run_name(model, seed)], units=units) for seed in seeds}
        for model, seeds in files.items()
    }
    counts = {model: list(seeds.values()) for model, seeds in by_seed.items()}
    (first, *_) = found.values()
    is_of_pixels = metric != "aupimo" and not metric.startswith("image_")
    facts = CategoryFacts(
        models=resample_models(counts),
        matched_by=matched_by,
        units=units,
        num_carrying={model: min(each.num_carrying for each in seeds) for model, seeds in counts.items()},
        protocol=first.protocol,
        of_seeds={model: {seed: each.value for seed, each in of.items() if seed} for model, of in by_seed.items()},
        num_mask_pixels={model: int(of[0].counts.mask.sum()) for model, of in counts.items() if is_of_pixels},
    )
    return facts, []


def _of_aupimo(paths: Mapping[str, Path]) -> tuple[dict[str, MetricCounts], MatchedBy]:
    """Counts of AUPIMO, as far as there are any, and what matched the images."""
    results, found = {name: _load(path) for name, path in paths.items()}, dict[str, MetricCounts]()
    aligned = align_scores(results)
    for name, result in results.items():
        counted = _counted(paths[name])
        counts = counts_of_result(result, None if counted is None else counted.groups)
        if counts is not None:
            found[name] = counts.in_order(aligned.orders[name])
    return found, aligned.matched_by


def _of_other(paths: Mapping[str, Path], metric: MetricName) -> dict[str, MetricCounts]:
    """Counts of another metric, whose images are matched by their paths."""
    found: dict[str, MetricCounts] = {}
    (first_name, *_) = paths
    for name, path in paths.items():
        counted = _counted(path)
        if counted is None or metric not in counted.values:
            raise BadDataError(
                f"Expected the counts of {metric} of these scores in {path.with_name(COUNTS_FILE)}, but there are none."
                f" Evaluate the maps with `--metrics {metric}` and `--out`."
            )
        counts = counts_of_metric(counted, metric)
        if found:
            first = found[first_name]
            one_protocol({first_name: first.protocol, name: counts.protocol})
            counts = counts.in_order(match_images(first.paths or [], counts.paths or [], first_name, name))
            if not bool((counts.units.is_anomalous == first.units.is_anomalous).all()):
                raise BadDataError(f"Expected the same normal images, but those of {first_name!r} and {name!r} differ.")
        found[name] = counts
    return found


def _common_units(counts: Mapping[str, MetricCounts]) -> Units:
    """Units of the models whose images are grouped, or of all; raise if two are grouped in other ways."""
    (first, *_) = counts
    for name, each in counts.items():
        if each.units.is_grouped:
            if counts[first].units.is_grouped and not each.units.of_image.equal(counts[first].units.of_image):
                raise BadDataError(f"Expected the same groups of images, but those of {first!r} and {name!r} differ.")
            first = name
    return counts[first].units


def one_protocol(protocols: Mapping[str, str]) -> str:
    """Return how the metric was computed; raise unless it was so of all models, or in all categories."""
    (first, *others) = protocols
    for other in others:
        if protocols[other] != protocols[first]:
            raise BadDataError(
                f"Expected scores that are computed alike, but got {protocols[first]!r} of {first!r}, and "
                f"{protocols[other]!r} of {other!r}."
            )
    return protocols[first]


def how_sure(facts: Mapping[str, CategoryFacts]) -> str:
    """Say what intervals are of, and of which models few normal images carry the FPR, so that they do not hold."""
    text = interval_note([each.units for each in facts.values()])
    few = [
        f"{number:.1f} for {model}{f' on {category}' if len(facts) > 1 else ''}"
        for category, each in facts.items()
        for model, number in each.num_carrying.items()
        if round(number, 6) < MIN_CARRYING
    ]
    if not few:
        return text
    return (
        f"{text} Few normal images carry the shared FPR: as many as {', '.join(few)}. AUPIMO tends to be too high then,"
        f" and its intervals and confidences hold less often than they say; from {MIN_CARRYING} images on they do."
    )


def only_for_these(scores_only: Mapping[str, Sequence[str]]) -> str:
    """Say that images cannot be resampled, as some results, by category, hold per-image scores only."""
    has_several = len(scores_only) > 1
    names = [f"{name}{f' on {category}' if has_several else ''}" for category, of in scores_only.items() for name in of]
    shown = ", ".join([*names[:MAX_LISTED], *["..."] * (len(names) > MAX_LISTED)])
    return (
        f"Only tests for these thresholds are possible, as per-image scores are all that is known of {shown}. They are "
        "too sure: other images would have other thresholds. `aupimo evaluate --out` and `AUPIMOResult.save` keep what "
        "resampling needs."
    )


def _load(path: Path) -> AUPIMOResult:
    """Load a result with all that was kept; raise if it cannot be read."""
    try:
        return AUPIMOResult.load(path)
    except ValueError as error:
        raise BadDataError(str(error)) from error


def _counted(path: Path) -> CountedImages | None:
    """What was counted of the images of a result file; None if there is nothing of these scores."""
    beside = path.with_name(COUNTS_FILE)
    if not beside.is_file():
        return None
    try:
        counted, scores = read_counts(beside), read_scores(json_path(path))
    except ValueError as error:
        raise BadDataError(f"{error} Evaluate again to write it anew.") from error
    is_of_scores = counted.paths == scores.paths and torch.equal(
        counted.aupimos.nan_to_num(-1), scores.aupimos.nan_to_num(-1)
    )
    return counted if is_of_scores else None
