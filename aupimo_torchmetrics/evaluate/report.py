"""The scores of an evaluation as tables, files and pictures."""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from aupimo_torchmetrics._files import replacing
from aupimo_torchmetrics._text_tables import text_table
from aupimo_torchmetrics.evaluate.bad_files import BadFile
from aupimo_torchmetrics.evaluate.map_files import read_image
from aupimo_torchmetrics.evaluate.pairing import Pair
from aupimo_torchmetrics.evaluate.reading import PairReader, Size, resized
from aupimo_torchmetrics.plotting import plot_distribution, plot_heatmaps, plot_pimo_curves, representative_images
from aupimo_torchmetrics.plotting._figures import CURVES_SIZE, distribution_size, figure_without_pyplot, heatmaps_size
from aupimo_torchmetrics.results import AUPIMOResult

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["CategoryScores", "Evaluation"]


@dataclass
class CategoryScores:
    """Scores of one category.

    Attributes:
        category: Name of the category.
        result: AUPIMO of its images, with their paths.
        pixel_scores: AUROC, AUPR and AUPRO by name, as far as they were asked for.
        pairs: Images and maps in the order of the result.
        resized: Size of a map and size of its mask, for maps that were resized.
        warnings: Warnings of the metrics.

    """

    category: str
    result: AUPIMOResult
    pixel_scores: dict[str, float]
    pairs: list[Pair]
    resized: set[tuple[Size, Size]]
    warnings: list[str]

    def values(self) -> dict[str, float]:
        """Return AUPIMO and the pixel scores by name; NaN where AUPIMO is undefined."""
        return {"aupimo": self.result.mean, **self.pixel_scores}


@dataclass
class Evaluation:
    """Scores of one or more categories.

    Attributes:
        categories: Scores of each category.
        bad_files: Files that were skipped.
        reader: Reads the maps, and is asked again for heat maps.
        without_maps: Categories of the data set of which there is no map.

    """

    categories: list[CategoryScores]
    bad_files: list[BadFile]
    reader: PairReader
    without_maps: list[str]

    def summary(self) -> str:
        """Return a table of the scores, the settings, warnings, and the files that were skipped."""
        lines = [self._table()]
        lines += ["", self.categories[0].result.protocol, self._resizing()]
        lines += [f"not evaluated, as there is no map: {', '.join(self.without_maps)}"] if self.without_maps else []
        lines += [f"warning: {scores.category}: {text}" for scores in self.categories for text in scores.warnings]
        lines += [f"skipped: {bad_file.path}: {bad_file.reason}" for bad_file in self.bad_files]
        return "\n".join(lines)

    def _table(self) -> str:
        """Lay out a row for each category, and one for their mean if there are several."""
        metrics = list(self.categories[0].values())
        rows = [["category", "normal", "defect", *map(str.upper, metrics)]]
        for scores in self.categories:
            num_normal = int(scores.result.aupimos.isnan().sum())
            counts = [str(num_normal), str(len(scores.pairs) - num_normal)]
            rows.append([scores.category, *counts, *(f"{value:.4f}" for value in scores.values().values())])
        if len(self.categories) > 1:
            columns = [[scores.values()[name] for scores in self.categories] for name in metrics]
            rows.append(["mean", "", "", *(f"{math.fsum(column) / len(column):.4f}" for column in columns)])
        return text_table(rows, "<" + ">" * (2 + len(metrics)))

    def _resizing(self) -> str:
        """Say in one line whether maps were resized to the size of their masks."""
        resized = sorted(set().union(*(scores.resized for scores in self.categories)))
        if not resized:
            return "Maps have the size of their masks."
        shown = ", ".join(f"{old[0]} x {old[1]} to {new[0]} x {new[1]}" for old, new in resized[:3])
        return f"Maps were resized bilinearly to the size of their masks: {shown}{', ...' if resized[3:] else ''}."

    def save(self, out: str | os.PathLike[str], *, has_folders: bool = True, heatmaps: bool = False) -> None:
        """Write the scores of each category in the official places and formats, and pictures of them.

        Args:
            out: Folder for `CATEGORY/aupimo/aupimos.json`, `curves.pt`, `distribution.png` and `curves.png`, and for
                `CATEGORY/auroc.json` and its like. It is made if need be. A category without a score has no pictures.
            has_folders: Whether each category has a folder of its own. If not, its files lie in `out` itself.
            heatmaps: Whether to draw `heatmaps.png` of the images that stand for the distribution, too.

        Raises:
            OSError: If a file cannot be written.
            BadDataError: If a map, mask or image for `heatmaps` can no longer be read, or the image never could.

        """
        out = Path(out)
        for scores in self.categories:
            folder = out / scores.category if has_folders else out
            (folder / "aupimo").mkdir(parents=True, exist_ok=True)
            scores.result.save(folder / "aupimo" / "aupimos.json")
            scores.result.curves().save(folder / "aupimo" / "curves.pt", scores.result.shared_fpr)
            for name, value in scores.pixel_scores.items():
                with replacing(folder / f"{name}.json") as unfinished:
                    unfinished.write_text(json.dumps({"value": value}, indent=4), encoding="utf-8")
            if not bool(scores.result.aupimos.isnan().all()):
                for name, figure in self._pictures(scores, heatmaps).items():
                    with replacing(folder / "aupimo" / f"{name}.png") as unfinished:
                        figure.savefig(unfinished, dpi=100, format="png")

    def _pictures(self, scores: CategoryScores, heatmaps: bool) -> dict[str, Figure]:
        """Draw the figures of a category, by the names of their files."""
        figures = {"distribution": figure_without_pyplot(distribution_size())}
        plot_distribution(scores.result, figures["distribution"].subplots())
        figures["curves"] = figure_without_pyplot(CURVES_SIZE)
        plot_pimo_curves(scores.result.curves(), scores.result, ax=figures["curves"].subplots())
        if heatmaps:
            figures["heatmaps"] = self._heatmaps(scores)
        return figures

    def _heatmaps(self, scores: CategoryScores) -> Figure:
        """Draw heat maps of the images that stand for the distribution of a category."""
        roles = representative_images(scores.result)
        loaded = [self.reader.read(scores.pairs[index]) for index in roles]
        maps, masks = [each.anomaly_map for each in loaded], [each.mask for each in loaded]
        images = [resized(read_image(each.pair.image.path), each.mask.shape) for each in loaded]
        figure = figure_without_pyplot(heatmaps_size(len(roles)))
        plot_heatmaps(images, maps, scores.result, masks, list(roles), list(roles.values()), figure)
        return figure
