"""The scores of an evaluation: what a person reads, and what a program does."""

from __future__ import annotations

import math
import os
import platform
import re
import warnings
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchmetrics

from aupimo_torchmetrics._errors import SettingError
from aupimo_torchmetrics._extras import require
from aupimo_torchmetrics._settings import PictureFormat, RowsBy, check_choice
from aupimo_torchmetrics._tables import csv_text, json_text, text_table
from aupimo_torchmetrics._version import __version__
from aupimo_torchmetrics.evaluate.bad_files import BadFile, bad_file_lines
from aupimo_torchmetrics.evaluate.category import CategoryScores, metric_title
from aupimo_torchmetrics.evaluate.output import OutputFolder, SavedFiles, folder_names, write_pictures, write_scores
from aupimo_torchmetrics.evaluate.page import PageTexts, write_evaluation_page
from aupimo_torchmetrics.evaluate.reading import PairReader

__all__ = ["Evaluation"]

NUM_NAMED = 3
"""How many categories a line names if one warning holds for many."""


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

    def means(self) -> dict[str, tuple[float, int]]:
        """Return the mean of each metric over the categories in which it is defined, and their number."""
        means = {}
        for name in self.categories[0].values():
            defined = [value for scores in self.categories if not math.isnan(value := scores.values()[name])]
            means[name] = (math.fsum(defined) / len(defined) if defined else math.nan, len(defined))
        return means

    def summary(self, by: RowsBy = "category") -> str:
        """Return a table of the scores, the settings, warnings, and the files that were skipped.

        Args:
            by: `"category"` for a row for each category, `"defect"` for a row for each type of defect too.

        Returns:
            Lines of text.

        Raises:
            ValueError: If `by` is not one of the choices.

        """
        check_choice("by", by, RowsBy)
        lines = [self._table(by), "", self.categories[0].result.protocol, *self._notes()]
        lines += [f"warning: {line}" for line in self._warning_lines()]
        lines += [f"skipped: {line}" for line in bad_file_lines(self.bad_files)]
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Return what `summary.json` holds: settings, versions, scores, counts, warnings, and skipped files.

        Returns:
            Texts, numbers, and lists and dicts of these. A score that is undefined is NaN; in the file it is null.

        """
        means = self.means()
        folders = folder_names(scores.category for scores in self.categories)
        return {
            "protocol": self.categories[0].result.protocol,
            "settings": self.settings,
            "versions": {
                "aupimo_torchmetrics": __version__,
                "python": platform.python_version(),
                **{package.__name__: str(package.__version__) for package in (np, torch, torchmetrics)},
            },
            "mean": {name: mean for name, (mean, _) in means.items()},
            "num_categories_in_mean": {name: number for name, (_, number) in means.items()},
            "categories": [
                {
                    "category": scores.category,
                    "folder": folders[scores.category],
                    **scores.values(),
                    "bounds": {name: list(bounds) for name, bounds in scores.bounds().items()},
                    "thresholds": scores.thresholds(),
                    "num_normal": scores.num_normal,
                    "num_anomalous": scores.num_anomalous,
                    "num_skipped": scores.num_skipped,
                    "resized": [{"from": list(old), "to": list(new)} for old, new in sorted(scores.resized)],
                    "defects": [defect._asdict() for defect in scores.defects()],
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
    ) -> SavedFiles:
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
            The files that were written, and which of them had been there before. Each is complete.

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
        names = folder_names(scores.category for scores in self.categories)
        where = [f"{names[scores.category]}/" if has_folders else "" for scores in self.categories]
        rows = [row for scores in self.categories for row in scores.image_rows()]
        folder = OutputFolder(out)
        try:
            for place, scores in zip(where, self.categories, strict=True):
                write_scores(folder, place, scores.result, scores.values())
            folder.write_text("images.csv", csv_text(rows))
            folder.write_text("summary.json", f"{json_text(self.to_dict())}\n")
            with warnings.catch_warnings():
                # Letters that no font has are drawn as boxes, and names too long for a layout without one.
                warnings.filterwarnings("ignore", "Glyph .* missing|constrained_layout not applied")
                if report:
                    folder.write(partial(self._write_page, quiet=quiet), "report.html")
                for place, scores in zip(where, self.categories, strict=True):
                    heatmaps_of = (self.reader, scores.pairs) if heatmaps else None
                    write_pictures(folder, place, scores.result, picture_format, heatmaps_of)
        except KeyboardInterrupt as error:
            raise KeyboardInterrupt(folder.interruption()) from error
        return folder.saved()

    def _write_page(self, path: Path, *, quiet: bool) -> None:
        """Write the page, under a progress bar."""
        from tqdm import tqdm  # noqa: PLC0415

        document = self.to_dict()
        texts = PageTexts(
            means=self.means(),
            notes=self._notes(),
            warnings=self._warning_lines(),
            skipped=bad_file_lines(self.bad_files),
            facts={name: str(value) for name, value in (document["settings"] | document["versions"]).items()},
        )
        with tqdm(desc=path.name, unit="image", disable=quiet or None) as bar:
            write_evaluation_page(path, self.categories, texts, self.reader, bar)

    def _table(self, by: RowsBy) -> str:
        """Lay out a row for each category, and one for their mean if there are several."""
        means = self.means()
        rows = [["category", "normal", "defect", *map(metric_title, means)]]
        for scores in self.categories:
            counts = [str(scores.num_normal), str(scores.num_anomalous)]
            rows.append([scores.category, *counts, *(f"{value:.4f}" for value in scores.values().values())])
            for defect in scores.defects() if by == "defect" else ():  # only AUPIMO is a score of images
                name = "(type not known)" if defect.defect is None else defect.defect
                counts = [str(defect.num_normal or ""), str(defect.num_anomalous)]
                rows.append([f"  {name}", *counts, f"{defect.aupimo:.4f}", *[""] * (len(means) - 1)])
        if len(self.categories) > 1:
            rows.append(["mean", "", "", *(f"{mean:.4f}" for mean, _ in means.values())])
            if any(number < len(self.categories) for _, number in means.values()):
                numbers = [f"{number} of {len(self.categories)}" for _, number in means.values()]
                rows.append(["mean of", "", "", *numbers])
        return text_table(rows, "<" + ">" * (2 + len(means)))

    def _notes(self) -> list[str]:
        """Say how metrics and maps are to be understood, and of which categories there is no map."""
        limit = self.settings.get("fpr_limit")
        is_limited = limit is not None and "aupro" in self.categories[0].other_scores
        lines = [f"AUPRO up to an FPR of {limit:g}"] if is_limited else []
        for scores in self.categories:
            bounds = [f"{metric_title(name)} {low:.4f} to {high:.4f}" for name, (low, high) in scores.bounds().items()]
            lines += [f"certain bounds: {scores.category}: {', '.join(bounds)}"] if bounds else []
        resized = sorted(set().union(*(scores.resized for scores in self.categories)))
        if resized:
            sizes = ", ".join(f"{old[0]} x {old[1]} to {new[0]} x {new[1]}" for old, new in resized[:NUM_NAMED])
            more = ", ..." if resized[NUM_NAMED:] else ""
            lines.append(f"Maps were resized bilinearly to the size of their masks: {sizes}{more}.")
        else:
            lines.append("Maps have the size of their masks.")
        if self.without_maps:
            return [*lines, *self.notes, f"not evaluated, as there is no map: {', '.join(self.without_maps)}"]
        return [*lines, *self.notes]

    def _warning_lines(self) -> list[str]:
        """Lines of warnings with their categories: one for all that differ only in their numbers."""
        groups: dict[str, list[tuple[str, str]]] = {}
        for scores in self.categories:
            for text in scores.warnings:
                groups.setdefault(re.sub(r"\d[\d.,e+-]*", "#", text), []).append((scores.category, text))
        lines = []
        for group in groups.values():
            named = ", ".join(category for category, _ in group[:NUM_NAMED])
            more = f", ... (and {len(group) - NUM_NAMED} more)" if len(group) > NUM_NAMED else ""
            numbers = f" (The numbers are those of {group[0][0]}.)" if len({text for _, text in group}) > 1 else ""
            lines.append(f"{named}{more}: {group[0][1]}{numbers}")
        return lines
