"""The scores of an evaluation, of each category and of all: what a person reads, and what a program does."""

from __future__ import annotations

import math
import os
import platform
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any, get_args

import numpy as np
import torch
import torchmetrics

from aupimo_torchmetrics._engine.binning import PixelCounts
from aupimo_torchmetrics._engine.resampling import Interval, Units
from aupimo_torchmetrics._errors import SettingError
from aupimo_torchmetrics._extras import progress, require
from aupimo_torchmetrics._files.counts import COUNTS_FILE, CountedImages, write_counts
from aupimo_torchmetrics._files.writing import write_text
from aupimo_torchmetrics._metric_counts import MetricCounts, counts_of_metric, counts_of_result, interval_note
from aupimo_torchmetrics._settings import MetricName, PictureFormat, RowsBy, check_choice
from aupimo_torchmetrics._tables import csv_text, interval_text, json_text, metric_title, text_table
from aupimo_torchmetrics._version import __version__
from aupimo_torchmetrics.evaluate import output
from aupimo_torchmetrics.evaluate.at_threshold import RATES, rates_at, threshold_text, unit_warning
from aupimo_torchmetrics.evaluate.bad_files import BadFile, bad_file_lines
from aupimo_torchmetrics.evaluate.counting import intervals_of
from aupimo_torchmetrics.evaluate.pairing import Pair
from aupimo_torchmetrics.evaluate.protocols import protocol_lines
from aupimo_torchmetrics.evaluate.reading import PairReader, Size, size_text
from aupimo_torchmetrics.evaluate.written import check_apart, files_of, saying_what_was_written, write_mask
from aupimo_torchmetrics.results import AUPIMOResult, PixelResult
from aupimo_torchmetrics.statistics import bootstrap_interval

__all__ = ["CategoryScores", "Evaluation", "interval_texts"]


@dataclass
class CategoryScores:
    """Scores of one category.

    Attributes:
        category: Name of the category.
        result: AUPIMO of its images, with their paths relative to the data set.
        other_scores: Metrics beside AUPIMO by name, as far as they were asked for.
        pairs: Images and maps in the order of the result.
        images: What is known of each image, in the same order, as `images.csv` holds it: `path`, `category`, `defect`
            (empty if its type is not known), `is_anomalous`, `mask_pixels`, `aupimo`, `tpr_at_lower` and `tpr_at_upper`
            (NaN for a normal image), `num_pixels` that count, `mask_share` of these, `max_score` of the map,
            `image_score`, by which metrics of images rank it, and `mask_max_score` in the mask. With a threshold also
            `alarm`, `false_pixels`, `found_pixels`, and `found_share` of the mask.
        resized: Size of a map and size of its mask, for maps that were resized.
        warnings: Warnings of the metrics.
        slider_thresholds: Thresholds of the slider of a page, ascending, for shared FPRs from 1 to the lower bound.
        threshold: The threshold whose effect was counted; None if there is none.
        num_skipped: Images of the category that were not scored, as their files are bad.
        of_defects: Metrics beside AUPIMO of the normal images and those of each type of defect, if asked for.
        pixels: Counts of each image in common bins, for metrics of all pixels.
        intervals: Interval of each metric by name, if asked for: where it may lie on other images of the same kind.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> import numpy as np
        >>> from PIL import Image
        >>> from aupimo_torchmetrics.evaluate import evaluate
        >>> scores = np.arange(16.0).reshape(4, 4)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for kind in ("images", "masks", "maps"):
        ...         Path(folder, kind).mkdir()
        ...     for name, highest_normal in (("a", 15), ("b", 12)):
        ...         Image.new("L", (4, 4)).save(Path(folder, f"images/{name}.png"))
        ...         Image.fromarray(scores > highest_normal).save(Path(folder, f"masks/{name}.png"))
        ...         np.save(Path(folder, f"maps/{name}.npy"), scores)
        ...     evaluation = evaluate(f"{folder}/maps", folder, fpr_bounds=(0.1, 0.5))
        >>> scores = evaluation.categories[0]
        >>> scores.num_normal, scores.num_anomalous
        (1, 1)
        >>> [round(image["aupimo"], 3) for image in scores.images]
        [nan, 0.899]

    """

    category: str
    result: AUPIMOResult
    other_scores: dict[str, PixelResult]
    pairs: list[Pair]
    images: list[dict[str, Any]]
    resized: set[tuple[Size, Size]]
    warnings: list[str]
    slider_thresholds: list[float] = field(default_factory=list)
    threshold: float | None = None
    num_skipped: int = 0
    of_defects: dict[str, dict[str, float]] = field(default_factory=dict)
    pixels: PixelCounts | None = None
    intervals: dict[str, Interval] = field(default_factory=dict)

    def __repr__(self) -> str:
        """Show the scores of the category, and not every image."""
        return f"<CategoryScores of {self.category!r}: {self.values()}>"

    @property
    def num_anomalous(self) -> int:
        """Images that were scored and have a defect."""
        return sum(image["is_anomalous"] for image in self.images)

    @property
    def num_normal(self) -> int:
        """Images that were scored and have none."""
        return len(self.images) - self.num_anomalous

    @property
    def groups(self) -> list[str] | None:
        """Group of each image, empty for an image of its own; None if images are not grouped."""
        groups = [image.get("group", "") for image in self.images]
        return groups if any(groups) else None

    def interval_of_mean(self) -> tuple[float, float]:
        """Return the interval of the mean AUPIMO."""
        if "aupimo" in self.intervals:
            return self.intervals["aupimo"][:2]
        return bootstrap_interval(self.result, groups=self.groups)

    def values(self) -> dict[str, float]:
        """Return AUPIMO and the other metrics by name; NaN where one is undefined."""
        return {"aupimo": self.result.mean, **{name: score.value for name, score in self.other_scores.items()}}

    def bounds(self) -> dict[str, tuple[float, float]]:
        """Return certain bounds of the metrics that are not exact, by name."""
        scores = self.other_scores.items()
        return {name: score.bounds for name, score in scores if score.bounds[0] < score.bounds[1]}

    def thresholds(self) -> dict[str, float]:
        """Return the thresholds at which metrics are reached, by name, as far as they are reached at one."""
        return {name: each.threshold for name, each in self.other_scores.items() if not math.isnan(each.threshold)}

    def at_threshold(self) -> dict[str, float]:
        """Return what the threshold does to all pixels and images.

        Returns:
            `threshold`, `seg_f1`, `precision`, `recall` and `fpr` of all pixels, `class_f1` of the images, and how many
            of either class raise an alarm: `num_normal_alarms` and `num_anomalous_alarms`. Empty without a threshold.

        """
        return {} if self.threshold is None else rates_at(self.threshold, self.images)

    def alarm_counts(self) -> tuple[str, str]:
        """Return how many normal and how many anomalous images raise an alarm at the threshold, as `3 of 20`."""
        rates = self.at_threshold()
        return (
            f"{rates['num_normal_alarms']} of {self.num_normal}",
            f"{rates['num_anomalous_alarms']} of {self.num_anomalous}",
        )

    def unit_warning(self) -> str:
        """Say that the threshold is none of these maps; empty if it may be one, or if there is none."""
        if self.threshold is None:
            return ""
        num_found = sum(image["false_pixels"] + image["found_pixels"] for image in self.images)
        num_pixels = sum(image["num_pixels"] for image in self.images)
        return unit_warning(self.threshold, num_found, num_pixels, max(image["max_score"] for image in self.images))

    def totals(self) -> dict[str, Any]:
        """Return `num_normal`, `num_anomalous`, and the metrics by name."""
        return {"num_normal": self.num_normal, "num_anomalous": self.num_anomalous, **self.values()}

    def defects(self) -> list[dict[str, Any]]:
        """Return the scores of each type of defect, sorted by name, of which there is an anomalous image.

        Returns:
            `defect`, the type, which is empty if it is not known; `num_normal`, all normal images; `num_anomalous`,
            those of this type; the mean `aupimo` of these; and of both together the other metrics, if asked for.

        """
        rows = []
        for defect in sorted({image["defect"] for image in self.images}):
            scores = [each["aupimo"] for each in self.images if each["is_anomalous"] and each["defect"] == defect]
            if scores:
                values = {"aupimo": fmean(scores), **self.of_defects.get(defect, {})}
                rows.append({"defect": defect, "num_normal": self.num_normal, "num_anomalous": len(scores), **values})
        return rows


def interval_texts(intervals: Mapping[str, Interval], names: Iterable[str]) -> list[str]:
    """Write the intervals of metrics, in the order of their names.

    Example:
        >>> from aupimo_torchmetrics._engine.resampling import Interval
        >>> from aupimo_torchmetrics.evaluate.evaluation import interval_texts
        >>> interval_texts({"aupimo": Interval(0.25, 0.5, 0.001)}, ["aupimo"])
        ['0.2500 to 0.5000']

    """
    shown = (intervals.get(name, (math.nan, math.nan)) for name in names)
    return [interval_text(lower, upper, ".4f") for lower, upper, *_ in shown]


def _means(rows: Sequence[Mapping[str, float]], names: Iterable[str]) -> dict[str, tuple[float, int]]:
    """Mean of each value over the rows in which it is defined, and their number."""
    means = {}
    for name in names:
        defined = [row[name] for row in rows if not math.isnan(row[name])]
        means[name] = (fmean(defined) if defined else math.nan, len(defined))
    return means


def _as_dicts(intervals: Mapping[str, Interval]) -> dict[str, dict[str, float]]:
    """Intervals as `summary.json` holds them."""
    return {name: each._asdict() for name, each in intervals.items()}


@dataclass
class Evaluation:
    """Scores of one or more categories.

    Attributes:
        categories: Scores of each category.
        bad_files: Files that were skipped.
        reader: Reads the maps, and is asked again for heat maps.
        without_maps: Categories of the data set of which there is no map.
        notes: What was understood of names and tables, a sentence each.
        settings: Parameters of `aupimo_torchmetrics.evaluate.evaluate` by name, paths as texts.
        mean_intervals: Interval of the mean of each metric over the categories, if asked for.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> import numpy as np
        >>> from PIL import Image
        >>> from aupimo_torchmetrics.evaluate import evaluate
        >>> scores = np.arange(16.0).reshape(4, 4)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     tile = Path(folder, "tile")
        ...     for kind in ("images", "masks", "maps"):
        ...         (tile / kind).mkdir(parents=True)
        ...     for name, highest_normal in (("a", 15), ("b", 12)):
        ...         Image.new("L", (4, 4)).save(tile / f"images/{name}.png")
        ...         Image.fromarray(scores > highest_normal).save(tile / f"masks/{name}.png")
        ...         np.save(tile / f"maps/{name}.npy", scores)
        ...     evaluation = evaluate(tile / "maps", tile, fpr_bounds=(0.1, 0.5))
        >>> print(evaluation.summary())  # doctest: +ELLIPSIS
        category  normal  defect  AUPIMO
        tile           1       1  0.8994
        ...
        >>> evaluation.means()["aupimo"][1]  # categories in which it is defined
        1

    """

    categories: list[CategoryScores]
    bad_files: list[BadFile]
    reader: PairReader
    without_maps: list[str]
    notes: list[str] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)
    mean_intervals: dict[str, Interval] = field(default_factory=dict)

    def __repr__(self) -> str:
        """Show the summary, and not every image."""
        return self.summary()

    def find_intervals(self) -> None:
        """Compute the intervals of all metrics in each category, and of their means, from the same 1,000 resamples."""
        found, self.mean_intervals = intervals_of([self._counts(scores) for scores in self.categories])
        for scores, intervals in zip(self.categories, found, strict=True):
            scores.intervals = intervals

    def counted(self, scores: CategoryScores) -> CountedImages:
        """Return what was counted of the images of a category, as `counts.safetensors` holds it."""
        has_image_scores = any(name.startswith("image_") for name in scores.other_scores)
        image_scores = [image["image_score"] for image in scores.images]
        return CountedImages(
            is_anomalous=torch.tensor([image["is_anomalous"] for image in scores.images], device="cpu"),
            aupimos=scores.result.aupimos.double().cpu(),
            paths=[image["path"] for image in scores.images],
            groups=scores.groups,
            pixels=scores.pixels,
            image_scores=torch.tensor(image_scores, dtype=torch.float64, device="cpu") if has_image_scores else None,
            values={name: score.value for name, score in scores.other_scores.items()},
            protocols={name: text for name, text in self.protocols.items() if name in scores.other_scores},
            fpr_limit=float(self.settings["fpr_limit"]),
        )

    def _counts(self, scores: CategoryScores) -> list[MetricCounts]:
        """Counts of AUPIMO and of the other metrics of a category."""
        counted = self.counted(scores)
        others = (counts_of_metric(counted, name) for name in get_args(MetricName) if name in counted.values)
        return list(filter(None, [counts_of_result(scores.result, counted.groups), *others]))

    def means(self) -> dict[str, tuple[float, int]]:
        """Return the mean of each metric over the categories in which it is defined, and their number."""
        values = [scores.values() for scores in self.categories]
        return _means(values, values[0])

    @property
    def protocols(self) -> dict[str, str]:
        """How each metric was computed, a line to quote beside its values, by name."""
        first = self.categories[0]
        has_scores = any(pair.image.score is not None for scores in self.categories for pair in scores.pairs)
        return protocol_lines(first.other_scores, self.settings, first.result.protocol, has_scores=has_scores)

    def mean_at_threshold(self) -> dict[str, float]:
        """Return the mean of each rate at the thresholds over the categories in which it is defined; empty without."""
        rates = [scores.at_threshold() for scores in self.categories]
        return {name: mean for name, (mean, _) in _means(rates, RATES).items()} if rates[0] else {}

    def summary(self, by: RowsBy | None = None) -> str:
        """Return a table of the scores, the settings, warnings, and the files that were skipped.

        Args:
            by: `"category"` for a row for each category, `"defect"` for a row for each type of defect too. None for
                what the evaluation was asked for.

        Returns:
            Lines of text.

        Raises:
            ValueError: If `by` is not one of the choices.

        """
        by = self.settings.get("by", "category") if by is None else by
        check_choice("by", by, RowsBy)
        tables = [self._table(by)]
        if self.categories[0].intervals:
            tables.append(self._table_of_intervals())
        if self.categories[0].threshold is not None:
            tables.append(self._table_at_threshold())
        lines = ["\n\n".join(tables), "", *self.protocols.values(), *self.note_lines()]
        lines += [f"warning: {line}" for line in self.warning_lines()]
        lines += [f"skipped: {line}" for line in bad_file_lines(self.bad_files)]
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Return what `summary.json` holds: settings, versions, scores, counts, warnings, and skipped files.

        Returns:
            Texts, numbers, and lists and dicts of these. A score that is undefined is NaN; in the file it is null.

        """
        means = self.means()
        folders = output.folder_names(scores.category for scores in self.categories)
        return {
            "protocol": self.categories[0].result.protocol,
            "protocols": self.protocols,
            "settings": self.settings,
            "versions": {
                "aupimo_torchmetrics": __version__,
                "python": platform.python_version(),
                **{package.__name__: str(package.__version__) for package in (np, torch, torchmetrics)},
            },
            "mean": {name: mean for name, (mean, _) in means.items()},
            "mean_at_threshold": self.mean_at_threshold(),
            "mean_intervals": _as_dicts(self.mean_intervals),
            "num_categories_in_mean": {name: number for name, (_, number) in means.items()},
            "categories": [
                {
                    "category": scores.category,
                    "folder": folders[scores.category],
                    **scores.totals(),
                    "bounds": {name: list(bounds) for name, bounds in scores.bounds().items()},
                    "intervals": _as_dicts(scores.intervals),
                    "thresholds": scores.thresholds(),
                    "at_threshold": scores.at_threshold(),
                    "slider_thresholds": scores.slider_thresholds,
                    "num_skipped": scores.num_skipped,
                    "resized": [{"from": list(old), "to": list(new)} for old, new in sorted(scores.resized)],
                    "defects": scores.defects(),
                }
                for scores in self.categories
            ],
            "notes": self.notes,
            "without_maps": self.without_maps,
            "warnings": [
                {"category": scores.category, "text": text} for scores in self.categories for text in scores.warnings
            ],
            "skipped": [bad_file._asdict() for bad_file in self.bad_files],
        }

    def save(
        self,
        out: str | os.PathLike[str],
        *,
        has_folders: bool = True,
        heatmaps: bool = False,
        picture_format: PictureFormat = "png",
        report: bool = False,
        quiet: bool = False,
    ) -> output.SavedFiles:
        """Write the scores of each category in the official places and formats, tables of all, and pictures.

        Args:
            out: Folder for `images.csv`, `summary.json`, `CATEGORY/aupimo/aupimos.json`, `curves.pt`,
                `distribution.png` and `curves.png`, and for `CATEGORY/auroc.json` and its like. It is made if need be.
                A category without a score has no pictures.
            has_folders: Whether each category has a folder of its own. If not, its files lie in `out` itself.
            heatmaps: Whether to draw `heatmaps.png` of the images that stand for the distribution, too.
            picture_format: `"png"`, `"svg"` or `"pdf"` for all pictures.
            report: Whether to write `report.html`, too: a page for a browser with the scores and every anomalous image,
                where what each threshold finds can be seen. It is one file, which needs no network.
            quiet: Whether to show no progress bar of the page. There is none either unless standard error is a
                terminal.

        Returns:
            The files that were written, each complete, and those of an earlier evaluation that lie there still.

        Raises:
            ValueError: If `picture_format` is not one of the choices, or `has_folders` is false for several categories.
            ModuleNotFoundError: If `report` is true and jinja2 is not installed. Nothing is written then.
            OSError: If a file cannot be written.
            BadDataError: If a map or mask for `heatmaps` can no longer be read. All else is written then, but for
                pictures.
            KeyboardInterrupt: If writing is stopped by Ctrl-C; its text says what had been written.

        """
        check_choice("picture_format", picture_format, PictureFormat)
        if not has_folders and len(self.categories) > 1:
            raise SettingError(f"Expected `has_folders=True` for {len(self.categories)} categories, but got False.")
        if report:
            require("jinja2", extra="evaluate", needed_by="Evaluation.save with `report`")
        folders = output.folder_names(scores.category for scores in self.categories)
        places = [f"{folders[scores.category]}/" if has_folders else "" for scores in self.categories]
        images = [image for scores in self.categories for image in scores.images]
        files: output.Files = {}
        for place, scores in zip(places, self.categories, strict=True):
            files |= output.score_files(place, scores.result, scores.values())
            counted = self.counted(scores)
            if counted.values or counted.groups is not None:
                files[f"{place}aupimo/{COUNTS_FILE}"] = partial(write_counts, counted=counted)
        files["images.csv"] = partial(write_text, text=csv_text(images))
        files[output.SUMMARY_FILE] = partial(write_text, text=f"{json_text(self.to_dict())}\n")
        if report:
            from aupimo_torchmetrics.evaluate.page import write_evaluation_page  # noqa: PLC0415

            files["report.html"] = partial(write_evaluation_page, evaluation=self, quiet=quiet)
        for place, scores in zip(places, self.categories, strict=True):
            files |= output.picture_files(place, scores, picture_format, self.reader if heatmaps else None)
        return output.write_files(Path(out), files)

    def write_masks(self, folder: str | os.PathLike[str], *, quiet: bool = False) -> list[Path]:
        """Write what is called anomalous at the thresholds: a PNG of 0 and 255 for each image, under its path.

        Args:
            folder: Folder of the masks. A mask has the size at which its map was scored: that of the mask of the image,
                or without one that of the image, or of the map if the image is not there or maps are not resized.
            quiet: Whether to show no progress bar.

        Returns:
            The files, in the order of the images.

        Raises:
            ValueError: If there is no threshold, or the folder lies in that of the maps or of the data.
            BadDataError: If a map can no longer be read, two masks would be one file, or one would replace an image or
                a mask that is read.
            OSError: If a mask cannot be written.

        """
        pairs = [
            (each.threshold, pair) for each in self.categories for pair in each.pairs if each.threshold is not None
        ]
        if not pairs:
            raise SettingError("Expected a `threshold` with `write_masks`, but got none.")
        read = [path for _, pair in pairs for path in (pair.image.path, *pair.image.masks)]
        out = check_apart("write_masks", folder, [self.settings.get("maps"), self.settings.get("data")])
        masks = files_of([pair.image.name for _, pair in pairs], out, ".png", read)
        with progress(pairs, "masks", "image", quiet=quiet) as shown, saying_what_was_written(folder) as written:
            for file, (threshold, pair) in zip(masks, shown, strict=True):
                loaded = self.reader.read(pair)
                write_mask(file, (loaded.anomaly_map >= threshold) & loaded.is_counted)
                written.append(file)
        return masks

    def _table(self, by: RowsBy) -> str:
        """Lay out a row for each category, and one for their mean if there are several."""
        means = self.means()
        rows = [["category", "normal", "defect", *map(metric_title, means)]]

        def add(name: str, values: Mapping[str, Any]) -> None:
            cells = [values.get(column, "") for column in ("num_normal", "num_anomalous", *means)]
            rows.append([name, *(f"{cell:.4f}" if isinstance(cell, float) else str(cell) for cell in cells)])

        for scores in self.categories:
            add(scores.category, scores.totals())
            for defect in scores.defects() if by == "defect" else ():
                add(f"  {defect['defect'] or '(type not known)'}", defect)
        count = len(self.categories)
        if count > 1:
            add("mean", {name: mean for name, (mean, _) in means.items()})
        if any(number < count for _, number in means.values()) and count > 1:
            add("mean of", {name: f"{number} of {count}" for name, (_, number) in means.items()})
        return text_table(rows, "<" + ">" * (2 + len(means)))

    def _table_of_intervals(self) -> str:
        """Lay out the intervals of each category, and of the means over several."""
        names = list(self.means())
        rows = [["95 % intervals", *map(metric_title, names)]]
        rows += [[scores.category, *interval_texts(scores.intervals, names)] for scores in self.categories]
        if len(self.categories) > 1:
            rows.append(["mean", *interval_texts(self.mean_intervals, names)])
        return text_table(rows, "<" * (1 + len(names)))

    def _table_at_threshold(self) -> str:
        """Lay out what the thresholds do, and the mean over several categories."""
        rows = [["category", "threshold", *map(metric_title, RATES), "alarms", "found"]]

        def add(name: str, threshold: str, rates: Mapping[str, float], *counts: str) -> None:
            shown = [f"{rates[rate]:{'.2e' if rate == 'fpr' else '.4f'}}" for rate in RATES]
            rows.append([name, threshold, *shown, *counts])

        for scores in self.categories:
            rates = scores.at_threshold()
            add(scores.category, threshold_text(rates["threshold"]), rates, *scores.alarm_counts())
        if len(self.categories) > 1:
            add("mean", "", self.mean_at_threshold(), "", "")
        return text_table(rows, "<" + ">" * (len(RATES) + 3))

    def note_lines(self) -> list[str]:
        """Say how metrics, maps and names are to be understood, and of which categories there is no map."""
        lines = []
        for scores in self.categories:
            bounds = [f"{metric_title(name)} {low:.4f} to {high:.4f}" for name, (low, high) in scores.bounds().items()]
            lines += [f"certain bounds: {scores.category}: {', '.join(bounds)}"] if bounds else []
            of_types = [values["au_spro"] for values in scores.of_defects.values() if "au_spro" in values]
            if of_types:  # as papers on MVTec LOCO report it
                lines.append(f"AU SPRO of {scores.category}, mean of its types of defects: {fmean(of_types):.4f}")
        resized = sorted(set().union(*(scores.resized for scores in self.categories)))
        if resized and self.settings.get("size") is None:
            sizes = " to ".join(map(size_text, resized[0]))
            lines.append(f"Maps were resized bilinearly to the size of their masks, as {sizes}.")
        elif not resized:
            lines.append("Maps have the size of their masks.")
        if self.categories[0].intervals:
            counted = map(self.counted, self.categories)
            intervals = [each for scores in self.categories for each in scores.intervals.values()]
            lines.append(interval_note([Units.of(each.is_anomalous, each.groups) for each in counted], intervals))
        lines += self.notes
        if self.without_maps:
            lines.append(f"not evaluated, as there is no map: {', '.join(self.without_maps)}")
        return lines

    def warning_lines(self) -> list[str]:
        """Return the warnings with their categories, those that differ only in their numbers in one line."""
        groups: dict[str, list[tuple[str, str]]] = {}
        for scores in self.categories:
            for text in scores.warnings:
                groups.setdefault(re.sub(r"\d[\d.,e+-]*", "#", text), []).append((scores.category, text))
        lines = []
        for (category, text), *others in groups.values():
            alike = f" The same, with other numbers: {', '.join(other for other, _ in others)}." if others else ""
            lines.append(f"{category}: {text}{alike}")
        return lines
