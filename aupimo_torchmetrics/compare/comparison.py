"""Which of several models is better, by their results: what is compared, what comes out, and what is written."""

from __future__ import annotations

import math
import os
import re
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aupimo_torchmetrics._errors import SettingError
from aupimo_torchmetrics._extras import progress, require
from aupimo_torchmetrics._files.writing import write_text
from aupimo_torchmetrics._settings import (
    TIE_TOLERANCE,
    Alternative,
    MetricName,
    PairedTestName,
    PictureFormat,
    check_choice,
)
from aupimo_torchmetrics._tables import csv_text, metric_title
from aupimo_torchmetrics._version import __version__
from aupimo_torchmetrics.compare.counts import CategoryFacts, how_sure, one_protocol, only_for_these, resample_category
from aupimo_torchmetrics.compare.find import ByCategory, find_results, missing_text
from aupimo_torchmetrics.compare.loading import load_results, named_category, unlike_masks
from aupimo_torchmetrics.compare.tables import latex_text, summary_text
from aupimo_torchmetrics.plotting import _figures, plot_confidence, plot_distribution, plot_ranks
from aupimo_torchmetrics.results import AUPIMOResult
from aupimo_torchmetrics.statistics import ModelComparison, ModelRanking, compare_models, rank_models
from aupimo_torchmetrics.statistics.paired import compare_resampled, mean_over_categories
from aupimo_torchmetrics.statistics.ranking import rank_means

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

__all__ = ["Comparison", "compare_paths"]

TEXT_FILE, CSV_FILE, LATEX_FILE, REPORT_FILE = "comparison.txt", "comparison.csv", "comparison.tex", "report.html"


@dataclass(frozen=True)
class Comparison:
    """Which of several models is better, on one category or on many.

    Attributes:
        results: What was compared, `results[category][model]`. The category is `""` if it has no folder. If a model has
            seeds, the score of an image is the mean over them. Empty for other metrics than AUPIMO.
        comparisons: Comparison of the models in each category: by resampled images, if what they were scored by is
            known, else image by image for the thresholds that they have.
        ranking: Ranks of the models over the categories. None if there is only one.
        missing: Categories that were skipped, and the models, as `MODEL` or `MODEL/SEED`, that lack each.
        seed_means: Mean score of each seed, `seed_means[category][model][seed]`; nothing for a model without seeds.
        atol: Scores of an image that differ by at most this count as equal in the Wilcoxon test.
        files: Result files, `files[category][model][seed]`; the seed is `""` for a model without seeds.
        warnings: What else than the models makes scores differ, and folders without a result: a line for each cause.
        metric: By which metric models are compared.
        for_these_thresholds: The paper's comparison in each category, image by image, beside that by resampled images.
        of_means: Comparison of the means over several categories by resampled images; None for one category.
        how_sure: What intervals and confidences are of, and how far they can be trusted.
        protocol: How the metric was computed; empty for AUPIMO, whose results say it.

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

    results: dict[str, dict[str, AUPIMOResult]]
    comparisons: dict[str, ModelComparison]
    ranking: ModelRanking | None
    missing: dict[str, tuple[str, ...]]
    seed_means: dict[str, dict[str, dict[str, float]]]
    atol: float
    files: ByCategory = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    metric: MetricName = "aupimo"
    for_these_thresholds: dict[str, ModelComparison] = field(default_factory=dict)
    of_means: ModelComparison | None = None
    how_sure: str = ""
    protocol: str = ""

    def __repr__(self) -> str:
        """Show the summary, and not every image."""
        return self.summary()

    @property
    def skipped(self) -> str:
        """One line that names the categories that some models lack, and these models. Empty if there are none."""
        return f"skipped, as not all models have it: {missing_text(self.missing)}" if self.missing else ""

    @property
    def order(self) -> tuple[str, ...]:
        """Names of the models, the best first: over all categories, or in the only one."""
        (first, *_) = self.comparisons.values()
        return first.order if self.ranking is None else self.ranking.order

    def notes(self) -> list[str]:
        """Return lines that say how images were matched if that is not sure, what was skipped, and the warnings."""
        by_position = [name for name, each in self.comparisons.items() if each.matched_by == "position"]
        # Of one category, the table of the comparison says it.
        names = ", ".join(by_position) if self.ranking is not None else ""
        position = f"images matched by position, as not all results have paths: {names}" if names else ""
        warnings = (f"warning: {text}" for text in self.warnings)
        return list(filter(None, [position, self.how_sure, self.skipped, *warnings]))

    def seeds_of(self, model: str) -> tuple[str, ...]:
        """Return the names of the seeds of a model, which are the same in all categories; none if it has no seeds."""
        return tuple(next(iter(self.seed_means.values())).get(model, ()))

    def seed_std(self, model: str, *categories: str) -> float:
        """Return the standard deviation of a model's mean score over its seeds.

        Args:
            model: Name of the model.
            categories: Names of categories, over which the score is the mean; none for all.

        Returns:
            The standard deviation of the sample (divided by the number of seeds less one); NaN for fewer than two
            seeds.

        """
        chosen = categories or tuple(self.comparisons)
        means = [
            statistics.fmean(self.seed_means[each][model][seed] for each in chosen) for seed in self.seeds_of(model)
        ]
        return statistics.stdev(means) if len(means) > 1 else math.nan

    def summary(self) -> str:
        """Return the tables as text.

        Returns:
            Lines. The first names the FPR bounds. The table of the comparison follows, for several categories with the
            mean score in each, and the ranking; behind a mean, in brackets, is the standard deviation over seeds. The
            last ones say how images were matched if that is not sure, which categories were skipped, and warnings.

        """
        return summary_text(self)

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
        (first, *_) = self.comparisons.values()
        settings: dict[str, Any] = {"test": first.test, "alternative": first.alternative, "atol": self.atol}
        if self.results:
            (result, *_) = next(iter(self.results.values())).values()
            settings = {"fpr_bounds": list(result.fpr_bounds), "shared_fpr": result.shared_fpr, **settings}
        if self.protocol:
            settings["protocol"] = self.protocol
        ranking = self.ranking and {
            "models": [
                {
                    "model": model,
                    "mean": self.ranking.means[model],
                    "std": self.seed_std(model),
                    "average_rank": self.ranking.average_ranks[model],
                    "ranks": {category: ranks[model] for category, ranks in self.ranking.ranks.items()},
                }
                for model in self.order
            ],
            **{name: getattr(self.ranking, name) for name in ("critical_difference", "p_value", "alpha", "groups")},
        }
        return {
            "metric": metric_title(self.metric),
            "version": __version__,
            "settings": settings,
            "models": list(self.order),
            "ordered_by": first.ordered_by if self.ranking is None else "average rank",
            "categories": [self._category_to_dict(category) for category in self.comparisons],
            "of_means": self.of_means
            and {
                "models": [
                    {
                        "model": model,
                        "mean": self.of_means.means[model],
                        "interval": list(self.of_means.intervals[model]),
                        "confidence": self.of_means.confidences_of(model),
                    }
                    for model in self.of_means.order
                ]
            },
            "ranking": ranking,
            "skipped": [{"category": name, "missing": list(models)} for name, models in self.missing.items()],
            "how_sure": self.how_sure,
            "warnings": list(self.warnings),
        }

    def to_dataframe(self) -> pd.DataFrame:
        """Return a table with a row for each model in each category, the best first; `comparison.csv` holds it.

        Returns:
            `category`, `model`, `mean`, `std` and `average_rank`, the ends of the interval, the mean of each seed, the
            confidence against each model, and the number of images. What is not known is NaN.

        """
        import pandas as pd  # noqa: PLC0415

        frame = pd.json_normalize(
            self.to_dict()["categories"], "models", ["category", "num_images", "num_normal"], sep="_"
        )
        frame[["interval_lower", "interval_upper"]] = frame.pop("interval").tolist()
        frame.insert(0, "category", frame.pop("category"))
        for name in frame.columns[frame.columns.str.startswith("differences_")]:
            parts = [each if isinstance(each, list) else [math.nan] * 3 for each in frame.pop(name)]
            column = f"difference_from_{name.removeprefix('differences_')}"
            frame[[column, f"{column}_lower", f"{column}_upper"]] = parts
        return frame.rename(columns=lambda name: re.sub("^confidence_", "confidence_against_", name))

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
        if report and not self.results:
            raise SettingError(f"Expected `report` with the metric aupimo, whose images it shows, not {self.metric}.")
        require("matplotlib", extra="plot", needed_by="Comparison.save")
        if report:
            require("jinja2", "PIL", "tifffile", "tqdm", extra="evaluate", needed_by="Comparison.save with `report`")
        out = Path(out)
        details = [
            "\n".join([name, str(each), *map(str, filter(None, [self.for_these_thresholds.get(name)]))])
            for name, each in self.comparisons.items()
            if self.ranking is not None
        ]
        texts = {
            TEXT_FILE: "\n\n".join([self.summary(), *details]) + "\n",
            CSV_FILE: csv_text(self.to_dataframe().to_dict("records")),
            LATEX_FILE: latex_text(self),
        }
        for name, content in texts.items():
            write_text(out / name, content)
        written = [out / name for name in texts]
        with progress(self.pictures().items(), "drawing", "picture", quiet=quiet) as pictures:
            for name, draw in pictures:
                path = out / f"{name}.{picture_format}"
                _figures.save_figure(draw, path)
                written.append(path)
        if report:
            from aupimo_torchmetrics.compare.page import write_comparison_page  # noqa: PLC0415

            write_comparison_page(out / REPORT_FILE, self, quiet=quiet)
            written.append(out / REPORT_FILE)
        return written

    def pictures(self) -> dict[str, Callable[[], Figure]]:
        """Return what draws each picture, by its path without suffix: `ranks`, `confidence` and the like."""
        draw, num_models = _figures.drawn_off_screen, len(self.order)
        drawings: dict[str, Callable[[], Figure]] = {}
        if self.ranking is not None:
            drawings["ranks"] = partial(draw, _figures.ranks_size(num_models), plot_ranks, self.ranking)
        for category, each in self.comparisons.items():
            name = "confidence" if self.ranking is None else f"{category}/confidence"
            drawings[name] = partial(draw, _figures.confidence_size(num_models), plot_confidence, each)
            if self.ranking is None and self.results:
                distribution = partial(plot_distribution, self.results[category], intervals=each.intervals)
                drawings["distribution"] = partial(draw, _figures.distribution_size(num_models), distribution)
        return drawings

    def _category_to_dict(self, category: str) -> dict[str, Any]:
        """The comparison in one category, as `to_dict` has it."""
        own, by_image = self.comparisons[category], self.for_these_thresholds.get(category)
        return {
            "category": category,
            "num_images": own.num_images,
            "num_normal": own.num_normal,
            "test": own.test,
            "matched_by": own.matched_by,
            "ordered_by": own.ordered_by,
            "models": [
                {
                    "model": model,
                    "mean": own.means[model],
                    "std": self.seed_std(model, category),
                    "seeds": self.seed_means[category].get(model, {}),
                    "average_rank": (by_image or own).average_ranks.get(model, math.nan),
                    "interval": list(own.intervals[model]),
                    "confidence": own.confidences_of(model),
                    "differences": {
                        other: list(own.differences[model, other])
                        for other in own.order
                        if (model, other) in own.differences
                    },
                }
                for model in own.order
            ],
            "for_these_thresholds": by_image
            and {"test": by_image.test, "confidence": {model: by_image.confidences_of(model) for model in own.order}},
        }


def compare_paths(
    paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    names: Sequence[str] | None = None,
    test: PairedTestName = "wilcoxon",
    alternative: Alternative = "greater",
    atol: float = TIE_TOLERANCE,
    *,
    metric: MetricName = "aupimo",
    quiet: bool = False,
) -> Comparison:
    """Compare models by their results on the same images, of one category or of many.

    Which model is better on other images of the same kind is asked of resampled images, the same for all models. That
    needs the files that `aupimo evaluate --out` or `AUPIMOResult.save` writes beside each `aupimos.json`. Of files that
    hold per-image scores only, as those of the official package, the paper's test alone is possible, which is for the
    thresholds that these images have. For AUPIMO both are given.

    A model with folders of seeds, such as `MODEL/seed0/CATEGORY/aupimo/aupimos.json`, is summed up: ranks, tests and
    intervals are of the mean over the seeds of each image, and the standard deviation over the seeds is given beside
    the mean.

    Args:
        paths: Two or more result files of different models; two or more folders of different models, as
            `aupimo evaluate --out` writes them; or one benchmark folder, which holds
            `MODEL/COLLECTION/CATEGORY/aupimo/aupimos.json` or `MODEL/CATEGORY/aupimo/aupimos.json`.
        names: Names of the models, one for each file or folder, or folder in a benchmark. None for the parts in which
            the paths differ.
        test: Paired test of the scores of images, for the thresholds that they have, as of
            `aupimo_torchmetrics.statistics.compare_models`, which also says how images of different results are
            matched.
        alternative: What the confidence is in, as of the same.
        atol: Scores of an image that differ by at most this count as equal in the Wilcoxon test.
        metric: By which metric to compare; another than `"aupimo"` is one that `aupimo evaluate --metrics` computed.
        quiet: Whether to show no progress bar.

    Returns:
        The comparison on the categories that all models have, with its tables as text and what writes it to files.

    Raises:
        BadDataError: If a file cannot be read as a result file, if results are not of the same images, FPR bounds and
            shared FPR, if scores are undefined, if folders hold fewer than two models or no category that all of them
            have, or if it is not clear what a file in a folder is of.
        ValueError: If a path is not there, if there is only one file, if names do not fit, or if a setting is not
            known.
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
        >>> print(comparison.summary())  # doctest: +ELLIPSIS
        AUPIMO, shared FPR 1e-05 to 0.0001
        for these thresholds, 10 images; confidence (1 - p, wilcoxon) that ...
            model   mean  rank     #1     #2  95% interval of the mean
        #1  new    0.550  1.00      -  0.999  0.350 to 0.770
        #2  old    0.450  2.00  0.000      -  0.250 to 0.670
        <BLANKLINE>
        Only tests for these thresholds ...

    """
    found = find_results([Path(path) for path in ([paths] if isinstance(paths, (str, os.PathLike)) else paths)], names)
    check_choice("metric", metric, MetricName)
    results, seed_means, warnings = load_results(found.files if metric == "aupimo" else {})
    ranking = rank_models(results) if len(results) > 1 else None
    image_by_image, facts = dict[str, ModelComparison](), dict[str, CategoryFacts]()
    scores_only: dict[str, list[str]] = {}
    with progress(found.files.items(), "comparing", "category", quiet=quiet) as categories:
        for category, files in categories:
            with named_category(category):
                if results:
                    image_by_image[category] = compare_models(results[category], test, alternative, atol)
                of_category, without_counts = resample_category(files, metric)
                if of_category is None:
                    scores_only[category] = without_counts
                else:
                    facts[category] = of_category
    resampled = [each.models for each in facts.values()]
    if metric != "aupimo":
        seed_means = {category: each.of_seeds for category, each in facts.items()}
        ranking = rank_means({name: each.models.means for name, each in facts.items()}) if len(facts) > 1 else None
        warnings += [text for each in facts.values() if (text := unlike_masks(each.num_mask_pixels))][:1]
    by_images = {name: compare_resampled(each.models, alternative, each.matched_by) for name, each in facts.items()}
    has_means = len(facts) > 1 and not scores_only
    return Comparison(
        results=results,
        comparisons=image_by_image if scores_only else by_images,
        ranking=ranking,
        missing=found.missing,
        seed_means=seed_means,
        atol=atol,
        files=found.files,
        warnings=(*found.warnings, *warnings),
        metric=metric,
        for_these_thresholds={} if scores_only else image_by_image,
        of_means=compare_resampled(mean_over_categories(resampled), alternative) if has_means else None,
        how_sure=only_for_these(scores_only) if scores_only else how_sure(facts),
        protocol=one_protocol({name: each.protocol for name, each in facts.items()}) if metric != "aupimo" else "",
    )
