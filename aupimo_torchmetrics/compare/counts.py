"""What was counted of the images of models, from their files: all in the order of the images of the first model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from aupimo_torchmetrics._engine.resampling import Units
from aupimo_torchmetrics._errors import BadDataError
from aupimo_torchmetrics._files.counts import COUNTS_FILE, CountedImages, read_counts
from aupimo_torchmetrics._files.results import tensors_path
from aupimo_torchmetrics._metric_counts import MetricCounts, counts_of_metric, counts_of_result, interval_note
from aupimo_torchmetrics._settings import MatchedBy, MetricName
from aupimo_torchmetrics._warnings import MIN_CARRYING
from aupimo_torchmetrics.results import AUPIMOResult
from aupimo_torchmetrics.statistics._matching import align_scores, match_images

__all__ = ["ONLY_FOR_THESE", "CategoryFacts", "CountsOfModels", "check_alike", "how_sure", "load_counts"]

ONLY_FOR_THESE = (
    "Only tests for these thresholds are possible, as results hold per-image scores alone. They are too sure: other "
    "images would have other thresholds. `aupimo evaluate --out` and `AUPIMOResult.save` keep what resampling needs."
)
"""What is said of a comparison image by image."""


class CategoryFacts(NamedTuple):
    """What is to be said of the models in a category."""

    units: Units
    num_carrying: dict[str, float]
    """Number of normal images that carry the FPR of AUPIMO of each model; NaN if it is not known."""
    protocol: str
    """How the metric was computed."""
    of_seeds: dict[str, dict[str, float]]
    """Value of each seed, `[model][seed]`; nothing for a model without seeds."""


class CountsOfModels(NamedTuple):
    """What was counted of the images of models."""

    by_seed: dict[str, dict[str, MetricCounts]]
    """Counts `[model][seed]`."""
    matched_by: MatchedBy
    """What said which images are the same."""

    @property
    def counts(self) -> dict[str, list[MetricCounts]]:
        """Counts of the seeds of each model."""
        return {model: list(seeds.values()) for model, seeds in self.by_seed.items()}

    def facts(self) -> CategoryFacts:
        """Return what is to be said of the models."""
        (first, *_) = next(iter(self.counts.values()))
        carrying = {model: min(each.num_carrying for each in seeds) for model, seeds in self.counts.items()}
        values = {
            model: {seed: each.value for seed, each in seeds.items() if seed} for model, seeds in self.by_seed.items()
        }
        return CategoryFacts(first.units, carrying, first.protocol, values)


def load_counts(files: Mapping[str, Mapping[str, Path]], metric: MetricName) -> CountsOfModels | None:
    """Load what was counted of the images of one category.

    Args:
        files: Result files `[model][seed]`.
        metric: Which metric.

    Returns:
        Counts; None for AUPIMO if one of the files holds per-image scores only.

    Raises:
        BadDataError: If a file cannot be read or lacks the metric, or if models are not of the same images, or not
            computed alike.

    """
    paths = {
        f"{model}/{seed}" if seed else model: path for model, seeds in files.items() for seed, path in seeds.items()
    }
    found = _of_aupimo(paths) if metric == "aupimo" else _of_other(paths, metric)
    if found is None:
        return None
    in_order, matched_by = iter(found[0]), found[1]
    by_seed = {model: {seed: next(in_order) for seed in seeds} for model, seeds in files.items()}
    return CountsOfModels(by_seed, matched_by)


def _of_aupimo(paths: Mapping[str, Path]) -> tuple[list[MetricCounts], MatchedBy] | None:
    """Counts of AUPIMO; None if one of the files holds per-image scores only."""
    if not all(tensors_path(path).is_file() for path in paths.values()):
        return None
    results = {name: _load(path) for name, path in paths.items()}
    aligned = align_scores(results)
    found = []
    for name, result in results.items():
        counts = counts_of_result(result)
        if counts is None:
            return None
        found.append(counts.in_order(aligned.orders[name]))
    beside = next(iter(paths.values())).with_name(COUNTS_FILE)
    if beside.is_file():
        found[0] = replace(found[0], units=Units.of(found[0].units.is_anomalous, _read(beside).groups))
    return found, aligned.matched_by


def _of_other(paths: Mapping[str, Path], metric: MetricName) -> tuple[list[MetricCounts], MatchedBy]:
    """Counts of another metric."""
    found: list[MetricCounts] = []
    (first_name, *_) = paths
    for name, path in paths.items():
        beside = path.with_name(COUNTS_FILE)
        counted = _read(beside) if beside.is_file() else None
        if counted is None or metric not in counted.values:
            raise BadDataError(
                f"Expected the counts of {metric} in {beside}, but there are none. Evaluate the maps with "
                f"`--metrics {metric}` and `--out`."
            )
        counts = counts_of_metric(counted, metric)
        if found:
            first = found[0]
            _check_alike(first_name, first.protocol, name, counts.protocol)
            counts = counts.in_order(match_images(first.paths or [], counts.paths or [], first_name, name))
            if not bool((counts.units.is_anomalous == first.units.is_anomalous).all()):
                raise BadDataError(f"Expected the same normal images, but those of {first_name!r} and {name!r} differ.")
        found.append(counts)
    return found, "path"


def _check_alike(name: str, protocol: str, other: str, other_protocol: str) -> None:
    """Raise unless two models, or categories, are scored in the same way."""
    if protocol != other_protocol:
        raise BadDataError(
            f"Expected scores that are computed alike, but got {protocol!r} of {name!r}, and {other_protocol!r} of "
            f"{other!r}."
        )


def check_alike(facts: Mapping[str, CategoryFacts]) -> str:
    """Return how the metric was computed; raise unless it was so in all categories."""
    (first, *others) = facts
    for other in others:
        _check_alike(first, facts[first].protocol, other, facts[other].protocol)
    return facts[first].protocol


def how_sure(facts: Mapping[str, CategoryFacts]) -> str:
    """Say what intervals are of, and of which models few normal images carry the FPR, so that they do not hold."""
    text = interval_note([each.units for each in facts.values()])
    few = [
        f"{number:.1f} for {model}{f' on {category}' if category else ''}"
        for category, each in facts.items()
        for model, number in each.num_carrying.items()
        if round(number, 6) < MIN_CARRYING
    ]
    if not few:
        return text
    return (
        f"{text} Few normal images carry the shared FPR: as many as {', '.join(few)}. AUPIMO itself is too high then, "
        f"and its intervals and confidences hold less often than they say; from {MIN_CARRYING} images on they do."
    )


def _load(path: Path) -> AUPIMOResult:
    """Load a result with all that was kept; raise if it cannot be read."""
    try:
        return AUPIMOResult.load(path)
    except ValueError as error:
        raise BadDataError(str(error)) from error


def _read(path: Path) -> CountedImages:
    """Read a file of counts; raise if it is none."""
    try:
        return read_counts(path)
    except ValueError as error:
        raise BadDataError(f"{error} Evaluate again to write it anew.") from error
