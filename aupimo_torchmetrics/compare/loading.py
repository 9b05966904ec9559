"""The results of models from their files, and what else than the models makes their scores differ."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from aupimo_torchmetrics._errors import BadDataError
from aupimo_torchmetrics._files.results import UNKNOWN
from aupimo_torchmetrics.compare.find import FoundResults
from aupimo_torchmetrics.results import AUPIMOResult, load_scores
from aupimo_torchmetrics.statistics._matching import align_scores
from aupimo_torchmetrics.statistics.paired import check_same_settings

__all__ = ["LoadedResults", "load_results", "named_category"]

OFFICIAL_NUM_THRESHOLDS = 300_000
"""Thresholds that the official package samples by default. Its files do not say how many it were."""

ByModel = dict[str, dict[str, AUPIMOResult]]
"""Results `[category][model]`, or `[category][MODEL/SEED]`."""


class LoadedResults(NamedTuple):
    """What the result files of models hold."""

    results: ByModel
    """`[category][model]`. If a model has seeds, the score of an image is the mean over them."""
    seed_means: dict[str, dict[str, dict[str, float]]]
    """Mean score of each seed, `[category][model][seed]`; nothing for a model without seeds."""
    warnings: tuple[str, ...]
    """What else than the models makes scores differ, and folders without a result: a line for each cause."""


def load_results(found: FoundResults) -> LoadedResults:
    """Load all results; raise unless they are averaged over the same FPRs."""
    results, single, seed_means = ByModel(), ByModel(), dict[str, dict[str, dict[str, float]]]()
    first: tuple[Path, AUPIMOResult] | None = None
    for category, by_model in found.files.items():
        for model, paths in by_model.items():
            by_seed = {seed: _load(path) for seed, path in paths.items()}
            for seed, result in by_seed.items():
                first = first or (paths[seed], result)
                check_same_settings(first[1], result, f"in {first[0]}", f"in {paths[seed]}")
                single.setdefault(category, {})[f"{model}/{seed}" if seed else model] = result
            results.setdefault(category, {})[model] = _mean_over_seeds(category, model, by_seed)
            means = {seed: result.mean for seed, result in by_seed.items() if seed}
            seed_means.setdefault(category, {})[model] = means
    warnings = filter(None, [*found.warnings, _by_thresholds(single), _by_masks(single)])
    return LoadedResults(results, seed_means, tuple(warnings))


@contextmanager
def named_category(category: str) -> Iterator[None]:
    """Put the name of the category, if it has one, before an error about its files."""
    try:
        yield
    except BadDataError as error:
        raise BadDataError(f"{category}: {error}" if category else str(error)) from error


def _load(path: Path) -> AUPIMOResult:
    """Load a result file; raise if it is none."""
    try:
        return load_scores(path)
    except ValueError as error:
        raise BadDataError(str(error).replace("`", "'")) from error  # keys of a file are no parameters


def _mean_over_seeds(category: str, model: str, by_seed: Mapping[str, AUPIMOResult]) -> AUPIMOResult:
    """A result with the mean score of each image over the seeds of a model."""
    first, *others = by_seed.values()
    if not others:
        return first
    with named_category(category):
        scores = align_scores({f"{model}/{seed}": result for seed, result in by_seed.items()}).scores
    mean = torch.from_numpy(np.mean(list(scores.values()), axis=0))
    return replace(first, aupimos=mean, threshold_bounds=(math.nan, math.nan), num_points=None, num_thresholds=UNKNOWN)


def _by_thresholds(results: ByModel) -> str:
    """Say that scores of a category are of other numbers of thresholds, or may be."""
    names: dict[int | str | None, dict[str, None]] = {}
    for by_model in results.values():
        numbers = {name: result.num_thresholds for name, result in by_model.items()}
        if len({OFFICIAL_NUM_THRESHOLDS if number == UNKNOWN else number for number in numbers.values()}) > 1:
            for name, number in numbers.items():
                names.setdefault(number, {})[name] = None
    if not names:
        return ""
    groups = "; ".join(f"{'exact' if number is None else number} for {', '.join(names[number])}" for number in names)
    return (
        f"not scored alike: `num_thresholds` is {groups}. Even equal maps then have slightly different scores, which a "
        "test may find. Score all models in one way."
    )


def _by_masks(results: ByModel) -> str:
    """Say that models were scored by other masks, or in another size."""
    for category, by_model in results.items():
        numbers = {name: int(each.mask_sizes.sum()) for name, each in by_model.items() if each.mask_sizes is not None}
        if len(set(numbers.values())) > 1:
            least, most = min(numbers, key=lambda name: numbers[name]), max(numbers, key=lambda name: numbers[name])
            return (
                f"not the same masks: {f'in {category} ' if category else ''}{numbers[least]:,} pixels are a "
                f"defect for {least}, {numbers[most]:,} for {most}. Such scores cannot be compared. Score all models "
                "with the same masks, in one size."
            )
    return ""
