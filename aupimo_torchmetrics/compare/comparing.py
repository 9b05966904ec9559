"""Load the results of models, sum up their seeds, and compare them."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from aupimo_torchmetrics._errors import BadDataError
from aupimo_torchmetrics._files.results import UNKNOWN
from aupimo_torchmetrics._settings import TIE_TOLERANCE, Alternative, PairedTestName
from aupimo_torchmetrics.compare._progress import progress
from aupimo_torchmetrics.compare.comparison import Comparison
from aupimo_torchmetrics.compare.find import NO_SEED, FoundResults, find_results
from aupimo_torchmetrics.results import AUPIMOResult, load_scores
from aupimo_torchmetrics.statistics import ModelComparison, compare_models, rank_models
from aupimo_torchmetrics.statistics._matching import align_scores
from aupimo_torchmetrics.statistics.paired import check_same_settings

__all__ = ["compare_paths"]

BySeed = dict[str, AUPIMOResult]
"""Results of one model by the name of the seed."""


def compare_paths(
    paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    names: Sequence[str] | None = None,
    test: PairedTestName = "wilcoxon",
    alternative: Alternative = "greater",
    atol: float = TIE_TOLERANCE,
    *,
    quiet: bool = False,
) -> Comparison:
    """Compare models by their results on the same images, of one category or of many.

    A model with folders of seeds, such as `MODEL/seed0/CATEGORY/aupimo/aupimos.json`, is summed up: ranks, tests and
    intervals are of the mean over the seeds of each image, and the standard deviation over the seeds is given beside
    the mean.

    Args:
        paths: Two or more result files of different models; two or more folders of different models, as
            `aupimo evaluate --out` writes them; or one benchmark folder, which holds
            `MODEL/COLLECTION/CATEGORY/aupimo/aupimos.json` or `MODEL/CATEGORY/aupimo/aupimos.json`.
        names: Names of the models, one for each file or folder. None for the parts in which the paths differ. A
            benchmark folder has names of its own.
        test: Paired test, as of `aupimo_torchmetrics.statistics.compare_models`, which also says how images of
            different results are matched.
        alternative: What the confidence is in, as of the same.
        atol: Scores of an image that differ by at most this count as equal in the Wilcoxon test.
        quiet: Whether to show no progress bar.

    Returns:
        The comparison on the categories that all models have, with its tables as text and what writes it to files.

    Raises:
        BadDataError: If a file cannot be read as a result file, if results are not of the same images, FPR bounds and
            shared FPR, if scores are undefined, if folders hold fewer than two models or no category that all of them
            have, or if it is not clear what a file in a folder is of.
        ValueError: If a path is not there, if there is only one file, if there are files and folders, if names do not
            fit, or if a setting is not known.
        ModuleNotFoundError: If scipy is not installed.

    Example:
        >>> import tempfile, torch
        >>> from pathlib import Path
        >>> from aupimo_torchmetrics import AUPIMOResult
        >>> from aupimo_torchmetrics.compare import compare_paths
        >>> scores, paths = torch.linspace(0, 0.9, 10), [f"crack/00{index}.png" for index in range(10)]
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     files = [Path(folder) / "old.json", Path(folder) / "new.json"]
        ...     for file, more in zip(files, (0, 0.1)):
        ...         AUPIMOResult(scores + more, (1e-5, 1e-4), (0.0, 1.0), paths=paths).save(file)
        ...     comparison = compare_paths(files)
        >>> print(comparison.summary())
        AUPIMO, shared FPR 1e-05 to 0.0001
        10 images; confidence (1 - p, wilcoxon) that a row's model is better than a column's; ordered by average rank
            model   mean  rank     #1     #2  95% interval of the mean
        #1  new    0.550  1.00      -  0.999  0.370 to 0.730
        #2  old    0.450  2.00  0.000      -  0.270 to 0.630

    """
    found = find_results([Path(path) for path in ([paths] if isinstance(paths, (str, os.PathLike)) else paths)], names)
    loaded = _load_all(found)
    results = {
        category: {model: _mean_over_seeds(category, model, by_seed) for model, by_seed in by_model.items()}
        for category, by_model in loaded.items()
    }
    seed_means = {
        category: {
            model: {seed: result.mean for seed, result in by_seed.items() if seed}
            for model, by_seed in by_model.items()
        }
        for category, by_model in loaded.items()
    }
    ranking = rank_models(results) if len(results) > 1 else None
    with progress(results, "comparing", quiet=quiet) as categories:
        comparisons = {
            category: _compare_category(category, results[category], test, alternative, atol) for category in categories
        }
    files = {
        category: {model: by_seed[NO_SEED] for model, by_seed in by_model.items() if NO_SEED in by_seed}
        for category, by_model in found.files.items()
    }
    return Comparison(results, comparisons, ranking, found.missing, seed_means, atol, files, found.warnings)


def _load_all(found: FoundResults) -> dict[str, dict[str, BySeed]]:
    """Load all results; raise unless they are averaged over the same FPRs."""
    loaded = {
        category: {model: {seed: _load(path) for seed, path in by_seed.items()} for model, by_seed in by_model.items()}
        for category, by_model in found.files.items()
    }
    flat = [
        (found.files[category][model][seed], result)
        for category, by_model in loaded.items()
        for model, by_seed in by_model.items()
        for seed, result in by_seed.items()
    ]
    (first_path, first), *others = flat
    for path, result in others:
        check_same_settings(first, result, f"in {first_path}", f"in {path}")
    return loaded


def _load(path: Path) -> AUPIMOResult:
    """Load a result file; raise if it is none."""
    try:
        return load_scores(path)
    except ValueError as error:
        raise BadDataError(str(error).replace("`", "'")) from error  # keys of a file are no parameters


def _mean_over_seeds(category: str, model: str, by_seed: BySeed) -> AUPIMOResult:
    """A result with the mean score of each image over the seeds of a model."""
    first, *others = by_seed.values()
    if not others:
        return first
    try:
        scores = align_scores({f"{model}/{seed}": result for seed, result in by_seed.items()}).scores
    except BadDataError as error:
        raise _in_category(category, error) from error
    return AUPIMOResult(
        aupimos=torch.from_numpy(np.mean(list(scores.values()), axis=0)),
        fpr_bounds=first.fpr_bounds,
        threshold_bounds=(math.nan, math.nan),
        num_thresholds=UNKNOWN,
        num_points=first.num_points,
        mask_sizes=first.mask_sizes,
        shared_fpr=first.shared_fpr,
        image_classes=first.image_classes,
        image_ids=first.image_ids,
        paths=first.paths,
        version=None,
    )


def _compare_category(
    category: str, results: Mapping[str, AUPIMOResult], test: PairedTestName, alternative: Alternative, atol: float
) -> ModelComparison:
    """Compare the models in a category; an error about its files begins with its name."""
    try:
        return compare_models(results, test, alternative, atol)
    except BadDataError as error:
        raise _in_category(category, error) from error


def _in_category(category: str, error: BadDataError) -> BadDataError:
    """The error with the name of the category, if it has one."""
    return BadDataError(f"{category}: {error}" if category else str(error))
