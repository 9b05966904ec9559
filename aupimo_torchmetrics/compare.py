"""Which model is better, and how sure one may be, of result files: what `aupimo compare` does.

Conventions: a result file is an `aupimos.json`, as :meth:`~aupimo_torchmetrics.AUPIMOResult.save` or the official
package writes it. A benchmark is a folder of result files `MODEL/COLLECTION/CATEGORY/aupimo/aupimos.json`, as the
official package lays them out, or `MODEL/CATEGORY/aupimo/aupimos.json`. What is wrong with the input is a ValueError of
one line.

This module needs the extra `stats`, and to draw pictures the extra `plot`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aupimo_torchmetrics._files import replacing
from aupimo_torchmetrics._settings import TIE_TOLERANCE, Alternative, PairedTestName
from aupimo_torchmetrics.plotting import plot_confidence, plot_distribution, plot_ranks
from aupimo_torchmetrics.results import AUPIMOResult
from aupimo_torchmetrics.statistics import (
    ModelComparison,
    ModelRanking,
    bootstrap_interval,
    compare_models,
    rank_models,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BENCHMARK_PATTERNS = ("*/*/*/aupimo/aupimos.json", "*/*/aupimo/aupimos.json")
"""Where a benchmark folder holds its result files."""
TEXT_FILE, CONFIDENCE_FILE, DISTRIBUTION_FILE, RANKS_FILE = (
    "comparison.txt",
    "confidence.png",
    "distribution.png",
    "ranks.png",
)
PICTURE_DPI = 150


@dataclass(frozen=True)
class CompareReport:
    """What a comparison of result files found."""

    summary: str
    """Tables, and what was written where."""
    left_out: str
    """One line that names the categories that were left out, and the models that lack them; empty if there are none."""


@dataclass(frozen=True)
class PairedTest:
    """How to compare models image by image, as :func:`~aupimo_torchmetrics.statistics.compare_models` says."""

    test: PairedTestName = "wilcoxon"
    alternative: Alternative = "greater"
    atol: float = TIE_TOLERANCE

    def compare(self, results: Mapping[str, AUPIMOResult]) -> ModelComparison:
        """Compare models image by image."""
        return compare_models(results, self.test, self.alternative, self.atol)


def compare_paths(
    paths: Sequence[str | os.PathLike[str]],
    names: Sequence[str] | None = None,
    paired_test: PairedTest | None = None,
    out: str | os.PathLike[str] | None = None,
) -> CompareReport:
    """Compare models by their result files on the same images, or by a benchmark folder on many categories.

    Args:
        paths: Two or more result files of different models, or one benchmark folder.
        names: Names of the models, one a file. None for what tells the paths apart.
        paired_test: How to compare. None for the defaults of :func:`~aupimo_torchmetrics.statistics.compare_models`.
        out: Folder to write text and pictures to, made if need be. None to write nothing.

    Returns:
        The tables, and what was left out.

    Raises:
        ValueError: If a file is missing or is no result file, if there are fewer than two models, if names do not fit
            the files, if results are not of the same images and bounds, if no category is common to all models, or if a
            setting is not known.
        ModuleNotFoundError: If scipy is not installed, or with `out` matplotlib.

    Example:
        >>> import tempfile, torch
        >>> from pathlib import Path
        >>> from aupimo_torchmetrics import AUPIMOResult
        >>> from aupimo_torchmetrics.compare import compare_paths
        >>> scores = torch.linspace(0, 0.9, 10)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     files = [Path(folder) / "old.json", Path(folder) / "new.json"]
        ...     for file, more in zip(files, (0, 0.1)):
        ...         AUPIMOResult(scores + more, (1e-5, 1e-4), (0.0, 1.0)).save(file)
        ...     report = compare_paths(files)
        >>> print(report.summary)
        AUPIMO, shared FPR 1e-05 to 0.0001
        10 images; confidence (1 - p, wilcoxon) that a row's model is better than a column's
            model   mean  rank      #1     #2  95% interval of the mean
        #1  new    0.550  1.00       -  0.999  0.370 to 0.730
        #2  old    0.450  2.00   0.000      -  0.270 to 0.630

    """
    paired_test = paired_test or PairedTest()
    folder = None if out is None else Path(out)
    files = [Path(path) for path in paths]
    if not any(path.is_dir() for path in files):
        return CompareReport(_compare_results(load_results(files, names), paired_test, folder), left_out="")
    if len(files) > 1:
        raise ValueError(f"Expected `PATH` to be files or one benchmark folder, but got a folder among {len(files)}.")
    if names is not None:
        raise ValueError(
            "Expected `--names` with files only: in a benchmark folder the names are those of its folders."
        )
    results, left_out = load_benchmark(files[0])
    if len(results) == 1:
        return CompareReport(_compare_results(next(iter(results.values())), paired_test, folder), left_out)
    return CompareReport(_compare_benchmark(results, left_out, paired_test, folder), left_out)


def load_results(paths: Sequence[Path], names: Sequence[str] | None = None) -> dict[str, AUPIMOResult]:
    """Load result files of different models.

    Args:
        paths: Two or more files.
        names: Names of the models. None for what tells the paths apart.

    Returns:
        Results by the name of the model.

    Raises:
        ValueError: If a file is missing or is no result file, there are fewer than two, or names do not fit them.

    """
    if len(paths) < 2:
        raise ValueError(
            f"Expected `PATH` to be two files or more, or one benchmark folder, but got the single file {paths[0]}."
            if paths[0].exists()
            else _missing(paths[0])
        )
    if names is None:
        names = distinguishing_names(paths)
    if len(names) != len(paths):
        raise ValueError(f"Expected `--names` to hold a name for each of {len(paths)} files, but got {len(names)}.")
    for place, name in enumerate(names):
        if name in names[:place]:
            raise ValueError(f"Expected the names of the models to be distinct, but got {name!r} twice.")
    return {name: _load(path) for name, path in zip(names, paths, strict=True)}


def distinguishing_names(paths: Sequence[Path]) -> list[str]:
    """Name files by the parts of their paths that differ, without what all have in common before and behind.

    Args:
        paths: Files.

    Returns:
        A name for each file, such as the folder of the model. Equal paths have equal names.

    Example:
        >>> from pathlib import Path
        >>> distinguishing_names([Path("runs/padim/aupimos.json"), Path("runs/uflow/aupimos.json")])
        ['padim', 'uflow']
        >>> distinguishing_names([Path("padim.json"), Path("runs/uflow.json")])
        ['padim', 'runs/uflow']

    """
    parts = [(path.with_suffix("") if path.suffix == ".json" else path).absolute().parts for path in paths]
    shortest = min(len(each) for each in parts) - 1  # something is left of each
    num_before = _num_common(parts, shortest)
    num_behind = _num_common([each[::-1] for each in parts], shortest - num_before)
    return ["/".join(each[num_before : len(each) - num_behind]) for each in parts]


def _num_common(sequences: Sequence[Sequence[str]], at_most: int) -> int:
    """How many of the first elements all sequences have in common."""
    for place in range(at_most):
        if len({sequence[place] for sequence in sequences}) > 1:
            return place
    return at_most


def load_benchmark(root: Path) -> tuple[dict[str, dict[str, AUPIMOResult]], str]:
    """Load the result files of all models on the categories that all of them have.

    Args:
        root: Benchmark folder.

    Returns:
        Results by the name of the category, then of the model. A category is named `CATEGORY`, or where there are
        several collections `COLLECTION/CATEGORY`. And a line that names what was left out.

    Raises:
        ValueError: If there are fewer than two models, none has a category that all have, or a file is no result file.

    """
    found: dict[tuple[str, ...], dict[str, Path]] = {}  # by collection, if any, and category
    for pattern in BENCHMARK_PATTERNS:
        for path in sorted(root.glob(pattern)):
            model, *category = path.relative_to(root).parts[:-2]
            found.setdefault(tuple(category), {})[model] = path
    models = sorted({model for by_model in found.values() for model in by_model})
    if len(models) < 2:
        raise ValueError(
            f"Expected the results of two models or more, as MODEL/COLLECTION/CATEGORY/aupimo/aupimos.json in {root}, "
            f"but got {len(models)}{''.join(f' ({model})' for model in models)}."
        )
    has_one_collection = len({category[:-1] for category in found}) == 1
    names = {category: category[-1] if has_one_collection else "/".join(category) for category in sorted(found)}
    common = [category for category in names if len(found[category]) == len(models)]
    left_out = [
        f"{name} (missing: {', '.join(model for model in models if model not in found[category])})"
        for category, name in names.items()
        if category not in common
    ]
    if not common:
        raise ValueError(f"Expected a category that all models have, but each lacks some: {', '.join(left_out)}.")
    results = {names[each]: {model: _load(found[each][model]) for model in models} for each in common}
    return results, f"left out, as not all models have it: {', '.join(left_out)}" if left_out else ""


def _load(path: Path) -> AUPIMOResult:
    """Load a result file; raise if it is not there."""
    if not path.is_file():
        raise ValueError(_missing(path))
    return AUPIMOResult.load(path)


def _missing(path: Path) -> str:
    """What is wrong with a path at which there is nothing."""
    return f"Expected `PATH` to be a file or a benchmark folder, but there is none at {path}."


def _compare_results(results: Mapping[str, AUPIMOResult], paired_test: PairedTest, out: Path | None) -> str:
    """Compare models on the same images; return the table, and write it and pictures to a folder."""
    comparison = paired_test.compare(results)
    text = _with_bounds(results, comparison_table(comparison, results))
    if out is None:
        return text
    _write_text(out / TEXT_FILE, text)
    _write_picture(out / CONFIDENCE_FILE, plot_confidence(comparison)[0])
    _write_picture(out / DISTRIBUTION_FILE, plot_distribution(results)[0])
    return f"{text}\n\nwritten to {out}: {TEXT_FILE}, {CONFIDENCE_FILE}, {DISTRIBUTION_FILE}"


def _compare_benchmark(
    results: Mapping[str, Mapping[str, AUPIMOResult]], left_out: str, paired_test: PairedTest, out: Path | None
) -> str:
    """Compare models in each category and rank them over all; return the tables, and write more to a folder."""
    ranking = rank_models(results)
    comparisons = {}
    with _progress(results, "comparing") as categories:
        for category in categories:
            comparisons[category] = _compare_category(category, results[category], paired_test)
    text = _with_bounds(next(iter(results.values())), f"{means_table(ranking, results)}\n\n{ranking}")
    if out is None:
        return f"{text}\n\n`--out DIR` writes the comparison in each category, and pictures"
    details = [f"{name}\n{comparison_table(each, results[name])}" for name, each in comparisons.items()]
    _write_text(out / TEXT_FILE, "\n\n".join(part for part in (text, left_out, *details) if part))
    _write_picture(out / RANKS_FILE, plot_ranks(ranking)[0])
    with _progress(results, "drawing") as categories:
        for category in categories:
            _write_picture(out / category / CONFIDENCE_FILE, plot_confidence(comparisons[category])[0])
    return f"{text}\n\nwritten to {out}: {TEXT_FILE}, {RANKS_FILE}, CATEGORY/{CONFIDENCE_FILE}"


def _compare_category(category: str, results: Mapping[str, AUPIMOResult], paired_test: PairedTest) -> ModelComparison:
    """Compare models in a category, whose name precedes what is wrong with it."""
    try:
        return paired_test.compare(results)
    except ValueError as error:
        raise ValueError(f"{category}: {error}") from error


def _with_bounds(results: Mapping[str, AUPIMOResult], tables: str) -> str:
    """Tables under a line that says at which FPR bounds their scores are."""
    lower, upper = next(iter(results.values())).fpr_bounds
    return f"AUPIMO, shared FPR {lower:g} to {upper:g}\n{tables}"


def comparison_table(comparison: ModelComparison, results: Mapping[str, AUPIMOResult]) -> str:
    """Return the table of a comparison with the bootstrap interval of each mean.

    Args:
        comparison: Comparison of the models.
        results: Their results.

    Returns:
        Lines: a title, a head, and a row for each model, the best first.

    """
    title, head, *rows = str(comparison).splitlines()
    lines = [title, f"{head}  95% interval of the mean"]
    for name, row in zip(comparison.order, rows, strict=True):
        low, high = bootstrap_interval(results[name])
        lines.append(f"{row}  {low:.3f} to {high:.3f}")
    return "\n".join(lines)


def means_table(ranking: ModelRanking, results: Mapping[str, Mapping[str, AUPIMOResult]]) -> str:
    """Return the table of the mean scores.

    Args:
        ranking: Ranking of the models.
        results: Results by the name of the category, then of the model.

    Returns:
        Lines: a head, and a row for each model, the best average rank first, with a column for each category.

    """
    width = max(len(name) for name in (*ranking.order, "mean score"))
    widths = {category: max(len(category), 5) for category in results}
    lines = ["  ".join([f"{'mean score':<{width}}", *(f"{name:>{size}}" for name, size in widths.items())])]
    for model in ranking.order:
        means = (f"{results[category][model].mean:>{size}.3f}" for category, size in widths.items())
        lines.append("  ".join([f"{model:<{width}}", *means]))
    return "\n".join(lines)


def _progress(categories: Iterable[str], activity: str) -> AbstractContextManager[Iterable[str]]:
    """The categories under a progress bar, if standard error is a terminal and tqdm is installed."""
    try:
        from tqdm import tqdm  # noqa: PLC0415
    except ModuleNotFoundError:
        return nullcontext(categories)
    bar: Any = tqdm(categories, desc=activity, unit="category", leave=False, disable=not sys.stderr.isatty())
    return bar  # type: ignore[no-any-return]


def _write_text(path: Path, text: str) -> None:
    """Write text to a file in a folder that is made if need be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as unfinished:
        unfinished.write_text(f"{text}\n", encoding="utf-8")


def _write_picture(path: Path, figure: Figure) -> None:
    """Write a figure to a file in a folder that is made if need be, and close it."""
    from matplotlib import pyplot as plt  # noqa: PLC0415

    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as unfinished:
        figure.savefig(unfinished, dpi=PICTURE_DPI, format="png")
    plt.close(figure)
