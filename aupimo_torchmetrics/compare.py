"""Which model is better, and how sure one may be, of result files: what `aupimo compare` does.

Conventions: a result file is an `aupimos.json`, as :meth:`~aupimo_torchmetrics.AUPIMOResult.save` or the official
package writes it. A benchmark is a folder of result files `MODEL/COLLECTION/CATEGORY/aupimo/aupimos.json`, as the
official package lays them out, or `MODEL/CATEGORY/aupimo/aupimos.json`. Errors have one line. If the files are the
reason, the error is a BadDataError; if the call is, it is another ValueError.

This module needs the extra `stats`, and to write pictures the extra `plot`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Collection, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aupimo_torchmetrics._extras import require
from aupimo_torchmetrics._files import BadDataError, replacing
from aupimo_torchmetrics._settings import TIE_TOLERANCE, Alternative, PairedTestName
from aupimo_torchmetrics._text_tables import text_table
from aupimo_torchmetrics.plotting import plot_confidence, plot_distribution, plot_ranks
from aupimo_torchmetrics.plotting._figures import confidence_size, distribution_size, figure_without_pyplot, ranks_size
from aupimo_torchmetrics.results import AUPIMOResult, load_scores
from aupimo_torchmetrics.statistics import ModelComparison, ModelRanking, compare_models, rank_models

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["BadDataError", "Comparison", "compare_paths"]

BENCHMARK_PATTERNS = ("*/*/*/aupimo/aupimos.json", "*/*/aupimo/aupimos.json")
"""Where a benchmark folder holds its result files."""

TEXT_FILE, CONFIDENCE_FILE, DISTRIBUTION_FILE, RANKS_FILE = (
    "comparison.txt",
    "confidence.png",
    "distribution.png",
    "ranks.png",
)
PICTURE_DPI = 150

ModelResults = dict[str, AUPIMOResult]
"""Results on the same images by the name of the model."""


@dataclass(frozen=True)
class Comparison:
    """Which of several models is better, on one category or on many.

    Attributes:
        results: What was compared, `results[category][model]`. The category is `""` if the files were given one by one.
        comparisons: Comparison of the models in each category, image by image.
        ranking: Ranks of the models over the categories. None if there is only one.
        skipped: One line that names the categories that some models lack, and these models. Empty if there are none.

    """

    results: dict[str, ModelResults]
    comparisons: dict[str, ModelComparison]
    ranking: ModelRanking | None
    skipped: str

    def summary(self) -> str:
        """Return the tables as text.

        Returns:
            Lines. The first names the FPR bounds. The table of the comparison follows for one category; for several,
            the mean scores in each and the ranking. The last line names the skipped categories, if there are any.

        """
        first_category, by_model = next(iter(self.results.items()))
        lower, upper = next(iter(by_model.values())).fpr_bounds
        title = f"AUPIMO, shared FPR {lower:g} to {upper:g}"
        if self.ranking is None:
            parts = [f"{title}\n{self.comparisons[first_category]}", self.skipped]
        else:
            parts = [f"{title}\n{_means_table(self.ranking, self.results)}", str(self.ranking), self.skipped]
        return "\n\n".join(part for part in parts if part)

    def save(self, out: str | os.PathLike[str]) -> list[Path]:
        """Write the summary and pictures.

        For one category there are `comparison.txt`, `confidence.png` and `distribution.png`. For several there are
        `comparison.txt`, which also holds the comparison in each category, `ranks.png`, and `CATEGORY/confidence.png`.

        Args:
            out: Folder to write to. It is made if need be.

        Returns:
            Paths of the files that were written.

        Raises:
            ModuleNotFoundError: If matplotlib is not installed. Nothing is written then.
            OSError: If the folder or a file cannot be written.

        """
        require("matplotlib", extra="plot", needed_by="Comparison.save")
        out = Path(out)
        return self._save_category(out) if self.ranking is None else self._save_benchmark(out, self.ranking)

    def _save_category(self, out: Path) -> list[Path]:
        """Write the files of one category."""
        (by_model,), (comparison,) = self.results.values(), self.comparisons.values()
        text = _write_text(out / TEXT_FILE, self.summary())
        confidence = _write_confidence(out / CONFIDENCE_FILE, comparison)
        figure = figure_without_pyplot(distribution_size(len(by_model)))
        plot_distribution(by_model, figure.subplots())
        return [text, confidence, _write_picture(out / DISTRIBUTION_FILE, figure)]

    def _save_benchmark(self, out: Path, ranking: ModelRanking) -> list[Path]:
        """Write the files of several categories and their ranking."""
        details = [f"{category}\n{comparison}" for category, comparison in self.comparisons.items()]
        text = _write_text(out / TEXT_FILE, "\n\n".join([self.summary(), *details]))
        figure = figure_without_pyplot(ranks_size(len(ranking.order)))
        plot_ranks(ranking, figure.subplots())
        ranks = _write_picture(out / RANKS_FILE, figure)
        with _progress(self.comparisons, "drawing") as categories:
            confidences = [
                _write_confidence(out / category / CONFIDENCE_FILE, self.comparisons[category])
                for category in categories
            ]
        return [text, ranks, *confidences]


def compare_paths(
    paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    names: Sequence[str] | None = None,
    test: PairedTestName = "wilcoxon",
    alternative: Alternative = "greater",
    atol: float = TIE_TOLERANCE,
) -> Comparison:
    """Compare models by their result files on the same images, or by a benchmark folder on many categories.

    Args:
        paths: Two or more result files of different models, or one benchmark folder.
        names: Names of the models, one for each file. None for the parts in which the paths differ. A benchmark folder
            has names of its own.
        test: Paired test, as of :func:`~aupimo_torchmetrics.statistics.compare_models`.
        alternative: What the confidence is in, as of the same.
        atol: Scores of an image that differ by at most this count as equal in the Wilcoxon test.

    Returns:
        The comparison, with its tables as text and what writes it to files.

    Raises:
        BadDataError: If a file cannot be read as a result file, if results are not of the same images, FPR bounds and
            shared FPR, if scores are undefined, or if a benchmark folder holds fewer than two models or no category
            that all of them have.
        ValueError: If a path is not there, if there is only one file, if a folder is not the only path, if names do not
            fit the files, or if a setting is not known.
        ModuleNotFoundError: If scipy is not installed.

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
        ...     comparison = compare_paths(files)
        >>> print(comparison.summary())
        AUPIMO, shared FPR 1e-05 to 0.0001
        10 images; confidence (1 - p, wilcoxon) that a row's model is better than a column's
            model   mean  rank     #1     #2  95% interval of the mean
        #1  new    0.550  1.00      -  0.999  0.370 to 0.730
        #2  old    0.450  2.00  0.000      -  0.270 to 0.630

    """
    files = [Path(path) for path in ([paths] if isinstance(paths, (str, os.PathLike)) else paths)]
    if any(path.is_dir() for path in files):
        results, skipped = _load_benchmark(files, names)
    else:
        results, skipped = {"": _load_results(files, names)}, ""
    ranking = rank_models(results) if len(results) > 1 else None
    with _progress(results, "comparing") as categories:
        comparisons = {
            category: _compare_category(category, results[category], test, alternative, atol) for category in categories
        }
    return Comparison(results, comparisons, ranking, skipped)


def _compare_category(
    category: str, results: ModelResults, test: PairedTestName, alternative: Alternative, atol: float
) -> ModelComparison:
    """Compare the models in a category; an error about its files begins with its name."""
    try:
        return compare_models(results, test, alternative, atol)
    except BadDataError as error:
        raise BadDataError(f"{category}: {error}" if category else str(error)) from error


def _load_results(files: Sequence[Path], names: Sequence[str] | None) -> ModelResults:
    """Load result files of different models, which have the given names or those that tell the files apart."""
    if len(files) == 1 and not files[0].exists():
        raise ValueError(_missing(files[0]))
    if len(files) < 2:
        found = f"the single file {files[0]}" if files else "none"
        raise ValueError(f"Expected `paths` to be two files or more, or one benchmark folder, but got {found}.")
    if names is None:
        names = _distinguishing_names(files)
    if len(names) != len(files):
        raise ValueError(f"Expected `names` to hold a name for each of {len(files)} files, but got {len(names)}.")
    for index, name in enumerate(names):
        if name in names[:index]:
            raise ValueError(f"Expected the names of the models to be distinct, but got {name!r} twice.")
    return {name: _load(path) for name, path in zip(names, files, strict=True)}


def _distinguishing_names(files: Sequence[Path]) -> list[str]:
    """Name files by the parts of their paths that differ, such as the folder of the model.

    Parts that all paths have in common are cut at the front and at the end. Equal paths get equal names.

    Example:
        >>> from pathlib import Path
        >>> _distinguishing_names([Path("runs/padim/aupimos.json"), Path("runs/uflow/aupimos.json")])
        ['padim', 'uflow']
        >>> _distinguishing_names([Path("padim.json"), Path("runs/uflow.json")])
        ['padim', 'runs/uflow']

    """
    parts = [(path.with_suffix("") if path.suffix == ".json" else path).absolute().parts for path in files]
    shortest = min(len(each) for each in parts) - 1  # at least one part remains of each
    num_front = _num_common(parts, shortest)
    num_end = _num_common([each[::-1] for each in parts], shortest - num_front)
    return ["/".join(each[num_front : len(each) - num_end]) for each in parts]


def _num_common(sequences: Sequence[Sequence[str]], at_most: int) -> int:
    """How many of the first elements all sequences have in common."""
    for index in range(at_most):
        if len({sequence[index] for sequence in sequences}) > 1:
            return index
    return at_most


def _load_benchmark(paths: Sequence[Path], names: Sequence[str] | None) -> tuple[dict[str, ModelResults], str]:
    """Load the results in a benchmark folder, by category and model, and say which categories were skipped.

    A category is named `CATEGORY`, or if there are several collections `COLLECTION/CATEGORY`.
    """
    if len(paths) > 1:
        raise ValueError(f"Expected `paths` to be files or one benchmark folder, but got a folder among {len(paths)}.")
    if names is not None:
        raise ValueError("Expected `names` with files only: in a benchmark folder the names are those of its folders.")
    (root,) = paths
    found = _find_results(root)
    models = sorted({model for by_model in found.values() for model in by_model})
    if len(models) < 2:
        raise BadDataError(
            f"Expected the results of two models or more, as MODEL/COLLECTION/CATEGORY/aupimo/aupimos.json in {root}, "
            f"but got {len(models)}{''.join(f' ({model})' for model in models)}."
        )
    common = [category for category, by_model in found.items() if len(by_model) == len(models)]
    skipped = ", ".join(
        f"{category} (missing: {', '.join(model for model in models if model not in found[category])})"
        for category in found
        if category not in common
    )
    if not common:
        raise BadDataError(f"Expected a category that all models have, but each lacks some: {skipped}.")
    results = {category: {model: _load(found[category][model]) for model in models} for category in common}
    return results, f"skipped, as not all models have it: {skipped}" if skipped else ""


def _find_results(root: Path) -> dict[str, dict[str, Path]]:
    """Result files in a benchmark folder, by the name of the category and of the model."""
    found: dict[tuple[str, ...], dict[str, Path]] = {}  # by the folders of collection, if any, and category
    for pattern in BENCHMARK_PATTERNS:
        for path in sorted(root.glob(pattern)):
            model, *category = path.relative_to(root).parts[:-2]
            found.setdefault(tuple(category), {})[model] = path
    has_one_collection = len({folders[:-1] for folders in found}) == 1
    return {folders[-1] if has_one_collection else "/".join(folders): found[folders] for folders in sorted(found)}


def _load(path: Path) -> AUPIMOResult:
    """Load a result file; raise if it is not there or is none."""
    if not path.is_file():
        raise ValueError(_missing(path))
    try:
        return load_scores(path)
    except ValueError as error:
        raise BadDataError(str(error).replace("`", "'")) from error  # keys of a file are no parameters


def _missing(path: Path) -> str:
    """What to say of a path at which there is nothing."""
    return f"Expected `paths` to be files or a benchmark folder, but there is none at {path}."


def _means_table(ranking: ModelRanking, results: dict[str, ModelResults]) -> str:
    """Mean scores in each category, with a row for each model, the best average rank first."""
    head = ["mean score", *results]
    rows = [[model, *(f"{by_model[model].mean:.3f}" for by_model in results.values())] for model in ranking.order]
    return text_table([head, *rows], "<" + ">" * len(results))


def _progress(categories: Collection[str], activity: str) -> AbstractContextManager[Iterable[str]]:
    """The categories, under a progress bar if there are several, standard error is a terminal and tqdm is installed."""
    try:
        from tqdm import tqdm  # noqa: PLC0415
    except ModuleNotFoundError:
        return nullcontext(categories)
    is_hidden = len(categories) == 1 or not sys.stderr.isatty()
    bar: Any = tqdm(categories, desc=activity, unit="category", leave=False, disable=is_hidden)
    return bar  # type: ignore[no-any-return]


def _write_text(path: Path, text: str) -> Path:
    """Write text to a file, in a folder that is made if need be, and return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as unfinished:
        unfinished.write_text(f"{text}\n", encoding="utf-8")
    return path


def _write_confidence(path: Path, comparison: ModelComparison) -> Path:
    """Write the picture of a comparison's confidences, and return its path."""
    figure = figure_without_pyplot(confidence_size(len(comparison.order)))
    plot_confidence(comparison, figure.subplots())
    return _write_picture(path, figure)


def _write_picture(path: Path, figure: Figure) -> Path:
    """Write a figure to a file, in a folder that is made if need be, and return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as unfinished:
        figure.savefig(unfinished, dpi=PICTURE_DPI, format="png")
    return path
