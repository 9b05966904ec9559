"""The results of models from their files, and what else than the models makes their scores differ."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from aupimo_torchmetrics._errors import BadDataError
from aupimo_torchmetrics._files.results import UNKNOWN
from aupimo_torchmetrics.compare.find import ByCategory, run_name
from aupimo_torchmetrics.results import AUPIMOResult, load_scores
from aupimo_torchmetrics.statistics._matching import align_scores
from aupimo_torchmetrics.statistics.paired import check_same_settings

__all__ = ["load_results", "named_category", "unlike_masks"]

OFFICIAL_NUM_THRESHOLDS = 300_000
"""Thresholds that the official package samples by default. Its files do not say how many it were."""

ByModel = dict[str, dict[str, AUPIMOResult]]
"""Results `[category][model]`, or `[category][MODEL/SEED]`."""
SeedMeans = dict[str, dict[str, dict[str, float]]]
"""Mean score of each seed, `[category][model][seed]`; nothing for a model without seeds."""


def load_results(files: ByCategory) -> tuple[ByModel, SeedMeans, list[str]]:
    """Load result files; raise unless they are averaged over the same FPRs.

    Args:
        files: Paths `[category][model][seed]`.

    Returns:
        Results `[category][model]`, in which the score of an image is the mean over the seeds; the mean of each seed;
        and a line, of the first such category, for each cause but the models that makes scores differ.

    """
    results, single, seed_means = ByModel(), ByModel(), SeedMeans()
    first: tuple[Path, AUPIMOResult] | None = None
    for category, by_model in files.items():
        results[category], single[category], seed_means[category] = {}, {}, {}
        for model, paths in by_model.items():
            by_seed = {seed: _load(path) for seed, path in paths.items()}
            for seed, result in by_seed.items():
                first = first or (paths[seed], result)
                check_same_settings(first[1], result, f"in {first[0]}", f"in {paths[seed]}")
                single[category][run_name(model, seed)] = result
            with named_category(category):
                results[category][model] = _mean_over_seeds(model, by_seed)
            seed_means[category][model] = {seed: result.mean for seed, result in by_seed.items() if seed}
    warnings = [next(filter(None, map(check, single.values())), "") for check in (_by_thresholds, _by_masks)]
    return results, seed_means, [text for text in warnings if text]


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
        reason = str(error).replace("`", "'")  # keys of a file are no parameters
        raise BadDataError(
            f"{reason} Give an aupimos.json, or the folder that `aupimo evaluate --out` wrote."
        ) from error


def _mean_over_seeds(model: str, by_seed: Mapping[str, AUPIMOResult]) -> AUPIMOResult:
    """A result with the mean score of each image over the seeds of a model."""
    first, *others = by_seed.values()
    if not others:
        return first
    scores = align_scores({run_name(model, seed): result for seed, result in by_seed.items()}).scores
    mean = torch.from_numpy(np.mean(list(scores.values()), axis=0))
    return replace(first, aupimos=mean, threshold_bounds=(math.nan, math.nan), num_points=None, num_thresholds=UNKNOWN)


def _by_thresholds(by_name: Mapping[str, AUPIMOResult]) -> str:
    """Say that scores of a category are of other numbers of thresholds, or may be."""
    names: dict[int | str | None, list[str]] = {}
    for name, result in by_name.items():
        names.setdefault(result.num_thresholds, []).append(name)
    if len({OFFICIAL_NUM_THRESHOLDS if number == UNKNOWN else number for number in names}) == 1:
        return ""
    groups = [f"{'exact' if number is None else number} for {', '.join(names[number])}" for number in names]
    return (
        f"not scored alike: `num_thresholds` is {'; '.join(groups)}. Even equal maps then have slightly different "
        "scores, which a test may find. Score all models in one way."
    )


def _by_masks(by_name: Mapping[str, AUPIMOResult]) -> str:
    """Say that models were scored by other masks, or in another size."""
    numbers = {name: int(each.mask_sizes.sum()) for name, each in by_name.items() if each.mask_sizes is not None}
    return unlike_masks(numbers)


def unlike_masks(numbers: Mapping[str, int]) -> str:
    """Say that models were scored by masks with other numbers of pixels."""
    if len({*numbers.values()}) < 2:
        return ""
    least, most = (choose(numbers, key=lambda name: numbers[name]) for choose in (min, max))
    return (
        f"not the same masks: {numbers[least]:,} pixels are a defect for {least}, {numbers[most]:,} for {most}. Such "
        "scores cannot be compared. Score all models with the same masks, in one size."
    )
