"""A comparison as text, tables and pictures."""

from __future__ import annotations

import math
import os
import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aupimo_torchmetrics._exports import csv_text
from aupimo_torchmetrics._extras import require
from aupimo_torchmetrics._files.writing import replacing, write_text
from aupimo_torchmetrics._settings import PictureFormat, check_choice
from aupimo_torchmetrics._text_tables import text_table
from aupimo_torchmetrics._version import __version__
from aupimo_torchmetrics.compare._progress import progress
from aupimo_torchmetrics.compare.alike import scoring_differences
from aupimo_torchmetrics.compare.find import missing_text
from aupimo_torchmetrics.compare.latex import latex_table
from aupimo_torchmetrics.plotting import plot_confidence, plot_distribution, plot_ranks
from aupimo_torchmetrics.plotting._figures import confidence_size, distribution_size, figure_without_pyplot, ranks_size
from aupimo_torchmetrics.results import AUPIMOResult
from aupimo_torchmetrics.statistics import ModelComparison, ModelRanking

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Comparison"]

TEXT_FILE, CSV_FILE, LATEX_FILE = "comparison.txt", "comparison.csv", "comparison.tex"
REPORT_FILE = "report.html"
CONFIDENCE, DISTRIBUTION, RANKS = "confidence", "distribution", "ranks"
"""Names of pictures, without the suffix of their format."""
PICTURE_DPI = 150

ModelResults = dict[str, AUPIMOResult]
"""Results on the same images by the name of the model."""
SeedMeans = dict[str, dict[str, float]]
"""Mean score of each seed of each model, `[model][seed]`; nothing for a model without seeds."""


@dataclass(frozen=True)
class Comparison:
    """Which of several models is better, on one category or on many.

    Attributes:
        results: What was compared, `results[category][model]`. The category is `""` if it has no folder. If a model has
            seeds, the score of an image is the mean over them.
        comparisons: Comparison of the models in each category, image by image.
        ranking: Ranks of the models over the categories. None if there is only one.
        missing: Categories that were skipped, and the models, as `MODEL` or `MODEL/SEED`, that lack each.
        seed_means: Mean score of each seed, `seed_means[category][model][seed]`; nothing for a model without seeds.
        atol: Scores of an image that differ by at most this count as equal in the Wilcoxon test.
        files: Result file of each model without seeds, `files[category][model]`.
        file_warnings: What to doubt of the files, such as a folder of a model without a result.

    Example:
        >>> import torch
        >>> from aupimo_torchmetrics import AUPIMOResult
        >>> from aupimo_torchmetrics.compare import Comparison
        >>> from aupimo_torchmetrics.statistics import compare_models
        >>> scores = torch.linspace(0, 0.9, 10)
        >>> results = {
        ...     name: AUPIMOResult(scores + more, (1e-5, 1e-4), (0.0, 1.0)) for name, more in (("a", 0), ("b", 0.1))
        ... }
        >>> comparison = Comparison({"": results}, {"": compare_models(results)}, None, {}, {"": {}}, 1e-3)
        >>> comparison.order
        ('b', 'a')

    """

    results: dict[str, ModelResults]
    comparisons: dict[str, ModelComparison]
    ranking: ModelRanking | None
    missing: dict[str, tuple[str, ...]]
    seed_means: dict[str, SeedMeans]
    atol: float
    files: dict[str, dict[str, Path]] = field(default_factory=dict)
    file_warnings: tuple[str, ...] = ()

    @property
    def skipped(self) -> str:
        """One line that names the categories that some models lack, and these models. Empty if there are none."""
        return f"skipped, as not all models have it: {missing_text(self.missing)}" if self.missing else ""

    @property
    def warnings(self) -> tuple[str, ...]:
        """What to doubt of the files, and what else than the models makes scores differ: a line for each cause."""
        return (*self.file_warnings, *scoring_differences(self.results))

    @property
    def order(self) -> tuple[str, ...]:
        """Names of the models, the best first: over all categories, or in the only one."""
        (first, *_) = self.comparisons.values()
        return first.order if self.ranking is None else self.ranking.order

    def seed_std(self, model: str, category: str | None = None) -> float:
        """Return the standard deviation of a model's mean score over its seeds.

        Args:
            model: Name of the model.
            category: Name of the category. None for the mean score over all categories.

        Returns:
            The standard deviation of the sample (divided by the number of seeds less one); NaN for fewer than two
            seeds.

        """
        categories = list(self.results) if category is None else [category]
        by_seed = [list(self.seed_means[name].get(model, {}).values()) for name in categories]
        means = [statistics.fmean(of_one_seed) for of_one_seed in zip(*by_seed, strict=True)]
        return statistics.stdev(means) if len(means) > 1 else math.nan

    def summary(self) -> str:
        """Return the tables as text.

        Returns:
            Lines. The first names the FPR bounds. The table of the comparison follows for one category; for several,
            the mean scores in each and the ranking. The last ones hold the standard deviations over seeds, how images
            were matched if that is not sure, the skipped categories, and warnings, as far as there are any.

        """
        (comparison, *_) = self.comparisons.values()
        parts = [f"{self._title()}\n{comparison}"]
        if self.ranking is not None:
            parts = [f"{self._title()}\n{self._means_table(self.ranking)}", str(self.ranking)]
        notes = [self._seeds_table(), self._position_note(), self.skipped, *self._warning_lines()]
        return "\n\n".join(part for part in [*parts, *notes] if part)

    def to_dict(self) -> dict[str, Any]:
        """Return the comparison as lists, dicts, texts and numbers.

        Returns:
            `metric`, `version`, `settings`, `models` in the order `ordered_by`, `categories` with the scores of each
            model in each, the best first, `ranking` over several categories or None, `skipped` with the models that
            lack each skipped category, and `warnings`. What is undefined is NaN.

        Example:
            >>> import torch
            >>> from aupimo_torchmetrics import AUPIMOResult
            >>> from aupimo_torchmetrics.compare import Comparison
            >>> from aupimo_torchmetrics.statistics import compare_models
            >>> scores = torch.linspace(0, 0.9, 10)
            >>> results = {
            ...     name: AUPIMOResult(scores + more, (1e-5, 1e-4), (0.0, 1.0)) for name, more in (("a", 0), ("b", 0.1))
            ... }
            >>> comparison = Comparison({"": results}, {"": compare_models(results)}, None, {}, {"": {}}, 1e-3)
            >>> comparison.to_dict()["models"]
            ['b', 'a']

        """
        (result, *_), (comparison, *_) = next(iter(self.results.values())).values(), self.comparisons.values()
        return {
            "metric": "AUPIMO",
            "version": __version__,
            "settings": {
                "fpr_bounds": list(result.fpr_bounds),
                "shared_fpr": result.shared_fpr,
                "test": comparison.test,
                "alternative": comparison.alternative,
                "atol": self.atol,
            },
            "models": list(self.order),
            "ordered_by": comparison.ordered_by if self.ranking is None else "average rank",
            "categories": [
                {
                    "category": category,
                    "num_images": each.num_images,
                    "matched_by": each.matched_by,
                    "ordered_by": each.ordered_by,
                    "models": [self._model(category, model) for model in each.order],
                }
                for category, each in self.comparisons.items()
            ],
            "ranking": None if self.ranking is None else self._ranking(self.ranking),
            "skipped": [{"category": name, "missing": list(models)} for name, models in self.missing.items()],
            "warnings": list(self.warnings),
        }

    def _model(self, category: str, model: str) -> dict[str, Any]:
        """What there is to say of a model in a category."""
        comparison = self.comparisons[category]
        return {
            "model": model,
            "mean": comparison.means[model],
            "std": self.seed_std(model, category),
            "seeds": self.seed_means[category].get(model, {}),
            "average_rank": comparison.average_ranks[model],
            "interval": list(comparison.intervals[model]),
            "confidence": {other: comparison.confidence[model, other] for other in comparison.order if other != model},
        }

    def _ranking(self, ranking: ModelRanking) -> dict[str, Any]:
        """What there is to say of the models over all categories."""
        models = [
            {
                "model": model,
                "mean": ranking.means[model],
                "std": self.seed_std(model),
                "average_rank": ranking.average_ranks[model],
                "ranks": {category: ranks[model] for category, ranks in ranking.ranks.items()},
            }
            for model in ranking.order
        ]
        return {
            "models": models,
            "critical_difference": ranking.critical_difference,
            "p_value": ranking.p_value,
            "alpha": ranking.alpha,
            "groups": [list(group) for group in ranking.groups],
        }

    def save(
        self,
        out: str | os.PathLike[str],
        picture_format: PictureFormat = "png",
        *,
        report: bool = False,
        quiet: bool = False,
    ) -> list[Path]:
        """Write the summary, tables and pictures.

        There are `comparison.txt`, `comparison.csv` with a row for each model in each category, and `comparison.tex`.
        For one category the pictures are `confidence.png` and `distribution.png`. For several they are `ranks.png` and
        `CATEGORY/confidence.png`, and `comparison.txt` also holds the comparison in each category.

        Args:
            out: Folder to write to. It is made if need be.
            picture_format: Format and suffix of the pictures: `"png"`, `"svg"` or `"pdf"`.
            report: Whether to write `report.html`, too: a page for a browser with the anomalous images of all models
                side by side, those on which they differ most first. Pictures of a model need the maps and images that
                `aupimo evaluate --out` scored, in the places that it saw them in.
            quiet: Whether to show no progress bar.

        Returns:
            Paths of the files that were written. An existing file is replaced only when the new one is complete.

        Raises:
            ValueError: If the format is not known.
            ModuleNotFoundError: If matplotlib is not installed, or for `report` a package of the extra `evaluate`.
                Nothing is written then.
            OSError: If the folder or a file cannot be written.

        """
        check_choice("picture_format", picture_format, PictureFormat)
        require("matplotlib", extra="plot", needed_by="Comparison.save")
        if report:
            require("jinja2", "PIL", "tifffile", "tqdm", extra="evaluate", needed_by="Comparison.save with `report`")
        out = Path(out)
        details = [f"{category}\n{comparison}" for category, comparison in self.comparisons.items()]
        text = "\n\n".join([self.summary(), *(details if self.ranking is not None else [])])
        write_text(out / TEXT_FILE, f"{text}\n")
        write_text(out / CSV_FILE, csv_text(list(self._rows())))
        write_text(out / LATEX_FILE, self._latex_table())
        written = [out / name for name in (TEXT_FILE, CSV_FILE, LATEX_FILE)]
        pictures = self._pictures()
        with progress(pictures, "drawing", "picture", quiet=quiet) as names:
            for name in names:
                path = out / f"{name}.{picture_format}"
                path.parent.mkdir(parents=True, exist_ok=True)
                with replacing(path) as unfinished:
                    pictures[name]().savefig(unfinished, dpi=PICTURE_DPI, format=picture_format)
                written.append(path)
        if report:
            self._write_page(out / REPORT_FILE, quiet=quiet)
            written.append(out / REPORT_FILE)
        return written

    def _write_page(self, path: Path, *, quiet: bool) -> None:
        """Write the page."""
        from aupimo_torchmetrics.compare.page import PageContent, write_comparison_page  # noqa: PLC0415

        content = PageContent(
            title=f"Comparison of {len(self.order)} models: {self._title()}",
            order=self.order,
            results=self.results,
            files=self.files,
            rows=list(self._rows()),
            figures=self._pictures(),
            notes=[note for note in (self._position_note(), self.skipped, *self._warning_lines()) if note],
            facts={name: str(value) for name, value in self.to_dict()["settings"].items()} | {"version": __version__},
        )
        write_comparison_page(path, content, quiet=quiet)

    def _title(self) -> str:
        """What the scores are, and for several categories how the models are ordered."""
        (result, *_) = next(iter(self.results.values())).values()
        lower, upper = result.fpr_bounds
        shared_by = " (maximum of per-image FPRs)" if result.shared_fpr == "max" else ""
        order = f"; ordered by average rank over {len(self.results)} categories" if self.ranking is not None else ""
        return f"AUPIMO, shared FPR {lower:g} to {upper:g}{shared_by}{order}"

    def _means_table(self, ranking: ModelRanking) -> str:
        """Mean scores in each category, with a row for each model, the best average rank first."""
        head = ["mean score", *self.results]
        rows = [[model, *(f"{each[model].mean:.3f}" for each in self.results.values())] for model in ranking.order]
        return text_table([head, *rows], "<" + ">" * len(self.results))

    def _seeds(self) -> dict[str, tuple[str, ...]]:
        """Names of the seeds of each model that has some, which are the same in all categories."""
        (by_model, *_) = self.seed_means.values()
        return {model: tuple(by_model[model]) for model in self.order if by_model.get(model)}

    def _seeds_table(self) -> str:
        """Means and standard deviations over seeds, with a row for each model that has some; empty if none has."""
        seeds = self._seeds()
        if not seeds:
            return ""
        columns: dict[str, str | None] = {category or "score": category for category in self.results}
        if self.ranking is not None:
            columns["all categories"] = None
        rows = [["model", "seeds", *columns]]
        for model, names in seeds.items():
            cells = [self._mean_and_std(model, category) for category in columns.values()]
            rows.append([model, f"{len(names)}: {', '.join(names)}", *cells])
        title = (
            "mean score (standard deviation over seeds); ranks, tests and intervals are of each image's mean over the "
            "seeds"
        )
        without = [model for model in self.order if model not in seeds]
        note = [f"without seeds: {', '.join(without)}"] if without else []
        return "\n".join([title, text_table(rows, "<<" + ">" * len(columns)), *note])

    def _mean_and_std(self, model: str, category: str | None) -> str:
        """Mean score in a category, or over all, and behind it the standard deviation if the model has seeds."""
        if category is None and self.ranking is not None:
            mean = self.ranking.means[model]
        else:
            mean = self.results[category or ""][model].mean
        if model not in self._seeds():
            return f"{mean:.3f}"
        std = self.seed_std(model, category)
        return f"{mean:.3f} ({'-' if math.isnan(std) else f'{std:.3f}'})"

    def _position_note(self) -> str:
        """Of several categories, those whose images were matched by position; empty if there are none."""
        by_position = [name for name, each in self.comparisons.items() if each.matched_by == "position"]
        if self.ranking is None or not by_position:  # the table of a comparison says it
            return ""
        return f"images matched by position, as not all results have paths: {', '.join(by_position)}"

    def _warning_lines(self) -> list[str]:
        """Warnings, told as such."""
        return [f"warning: {text}" for text in self.warnings]

    def _rows(self) -> Iterator[dict[str, Any]]:
        """Rows of the CSV table, one for each model in each category."""
        for category, comparison in self.comparisons.items():
            for model in comparison.order:
                lower, upper = comparison.intervals[model]
                yield {
                    "category": category,
                    "model": model,
                    "mean": comparison.means[model],
                    "std": self.seed_std(model, category),
                    "num_seeds": len(self._seeds().get(model, ())) or None,
                    "average_rank": comparison.average_ranks[model],
                    "interval_lower": lower,
                    "interval_upper": upper,
                    "num_images": comparison.num_images,
                    **{
                        f"confidence_against_{other}": comparison.confidence.get((model, other)) for other in self.order
                    },
                }

    def _latex_table(self) -> str:
        """Means in each category with their mean and the average rank, or for one category all that is printed."""
        (category, comparison), *_ = self.comparisons.items()
        comments = [self._title()]
        if self.ranking is not None:
            head = ["model", *self.results, "mean", "average rank"]
            rows = [
                [
                    model,
                    *(self._mean_and_std(model, category) for category in [*self.results, None]),
                    f"{self.ranking.average_ranks[model]:.2f}",
                ]
                for model in self.order
            ]
            alignment = "l" + "r" * (len(head) - 1)
        else:
            head, *printed = comparison.rows()
            rows = [[row[0], row[1], self._mean_and_std(row[1], category), *row[3:]] for row in printed]
            alignment = "ll" + "r" * (len(head) - 3) + "l"
            comments.append(comparison.title)
        if self._seeds():
            comments.append("In brackets: the standard deviation over seeds.")
        comments.append(r"With the package booktabs, \toprule, \midrule and \bottomrule may replace the lines.")
        return latex_table([head, *rows], alignment, "\n".join(comments))

    def _pictures(self) -> dict[str, Callable[[], Figure]]:
        """What draws each picture, by its path without suffix."""
        confidences = {
            f"{category}/{CONFIDENCE}" if self.ranking is not None else CONFIDENCE: partial(_draw_confidence, each)
            for category, each in self.comparisons.items()
        }
        if self.ranking is not None:
            return {RANKS: partial(_draw_ranks, self.ranking), **confidences}
        (by_model,) = self.results.values()
        return {**confidences, DISTRIBUTION: partial(_draw_distribution, by_model)}


def _draw_confidence(comparison: ModelComparison) -> Figure:
    """Draw the confidences of a comparison."""
    figure = figure_without_pyplot(confidence_size(len(comparison.order)))
    plot_confidence(comparison, figure.subplots())
    return figure


def _draw_distribution(results: ModelResults) -> Figure:
    """Draw the distributions of the scores of models."""
    figure = figure_without_pyplot(distribution_size(len(results)))
    plot_distribution(results, figure.subplots())
    return figure


def _draw_ranks(ranking: ModelRanking) -> Figure:
    """Draw the ranks of models."""
    figure = figure_without_pyplot(ranks_size(len(ranking.order)))
    plot_ranks(ranking, figure.subplots())
    return figure
