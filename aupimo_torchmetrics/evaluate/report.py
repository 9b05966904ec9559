"""What an evaluation found, as tables, files and pictures."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from aupimo_torchmetrics._files import replacing
from aupimo_torchmetrics.evaluate.map_files import read_image
from aupimo_torchmetrics.evaluate.pairing import Fault, Pair, PairReader, Size, resized
from aupimo_torchmetrics.plotting import plot_distribution, plot_heatmaps, plot_pimo_curves, representative_images
from aupimo_torchmetrics.plotting._figures import CURVES_SIZE, distribution_size, figure_without_pyplot, heatmaps_size
from aupimo_torchmetrics.results import AUPIMOResult


@dataclass
class CategoryScores:
    """Scores of one category.

    Attributes:
        category: Its name.
        result: AUPIMO of its images, with their paths.
        pixel_scores: AUROC, AUPR and AUPRO by name, as far as they were asked for.
        pairs: Images and maps in the order of the result.
        resized: Sizes of maps and of their masks where these differ.
        doubts: What the metrics warned of.

    """

    category: str
    result: AUPIMOResult
    pixel_scores: dict[str, float]
    pairs: list[Pair]
    resized: set[tuple[Size, Size]]
    doubts: list[str]

    def values(self) -> dict[str, float]:
        """Return the scores by the names of their metrics."""
        return {"aupimo": self.result.mean, **self.pixel_scores}


@dataclass
class Evaluation:
    """Scores of one or more categories.

    Attributes:
        categories: Scores of each category.
        faults: Files that were passed over.
        reader: What reads the maps.
        without_maps: Categories of the data set of which there is no map.

    """

    categories: list[CategoryScores]
    faults: list[Fault]
    reader: PairReader
    without_maps: list[str]

    def summary(self) -> str:
        """Return a table of the categories and their mean, and how the scores came about."""
        metrics = list(self.categories[0].values())
        width = max(10, *(len(scores.category) + 2 for scores in self.categories))
        lines = [f"{'category':<{width}}{'normal':>8}{'defect':>8}" + "".join(f"{name.upper():>9}" for name in metrics)]
        for scores in self.categories:
            num_normal = int(scores.result.aupimos.isnan().sum())
            head = f"{scores.category:<{width}}{num_normal:>8}{len(scores.pairs) - num_normal:>8}"
            lines.append(head + "".join(f"{value:>9.4f}" for value in scores.values().values()))
        if len(self.categories) > 1:
            columns = [[scores.values()[name] for scores in self.categories] for name in metrics]
            means = (math.fsum(column) / len(column) for column in columns)
            lines.append(f"{'mean':<{width + 16}}" + "".join(f"{mean:>9.4f}" for mean in means))
        lines += ["", self.categories[0].result.protocol, self._resizing()]
        lines += [f"not evaluated, as there is no map: {', '.join(self.without_maps)}"] if self.without_maps else []
        lines += [f"warning: {scores.category}: {doubt}" for scores in self.categories for doubt in scores.doubts]
        lines += [f"passed over: {fault.path}: {fault.reason}" for fault in self.faults]
        return "\n".join(lines)

    def _resizing(self) -> str:
        """Line that says how maps were brought to the size of their masks."""
        resized = sorted(set().union(*(scores.resized for scores in self.categories)))
        if not resized:
            return "Maps have the size of their masks."
        shown = ", ".join(f"{old[0]} x {old[1]} to {new[0]} x {new[1]}" for old, new in resized[:3])
        return f"Maps were resized bilinearly to the size of their masks: {shown}{', ...' if resized[3:] else ''}."

    def save(self, out: Path, *, has_folders: bool = True, has_heatmaps: bool = False) -> None:
        """Write the scores of each category in the official places and formats, and pictures of them.

        Args:
            out: Folder for `CATEGORY/aupimo/aupimos.json`, `curves.pt`, `distribution.png` and `curves.png`, and for
                `CATEGORY/auroc.json` and its like. It is made if need be.
            has_folders: Whether each category has a folder of its own.
            has_heatmaps: Whether to draw `heatmaps.png` of the images that stand for the distribution, too.

        """
        for scores in self.categories:
            folder = out / scores.category if has_folders else out
            (folder / "aupimo").mkdir(parents=True, exist_ok=True)
            scores.result.save(folder / "aupimo" / "aupimos.json")
            scores.result.curves().save(folder / "aupimo" / "curves.pt", scores.result.shared_fpr)
            for name, value in scores.pixel_scores.items():
                with replacing(folder / f"{name}.json") as unfinished:
                    unfinished.write_text(json.dumps({"value": value}, indent=4), encoding="utf-8")
            if not bool(scores.result.aupimos.isnan().all()):
                for name, figure in self._pictures(scores, has_heatmaps).items():
                    with replacing(folder / "aupimo" / f"{name}.png") as unfinished:
                        figure.savefig(unfinished, dpi=100, format="png")

    def _pictures(self, scores: CategoryScores, has_heatmaps: bool) -> dict[str, Any]:
        """Draw the figures of a category, by the names of their files."""
        figures = {"distribution": figure_without_pyplot(distribution_size())}
        plot_distribution(scores.result, figures["distribution"].subplots())
        figures["curves"] = figure_without_pyplot(CURVES_SIZE)
        plot_pimo_curves(scores.result.curves(), scores.result, ax=figures["curves"].subplots())
        if has_heatmaps:
            roles = representative_images(scores.result)
            loaded = [self.reader.read(scores.pairs[place]) for place in roles]
            maps, masks = [each.anomaly_map for each in loaded], [each.mask for each in loaded]
            images = [resized(read_image(each.pair.image.path), each.mask.shape) for each in loaded]
            figures["heatmaps"] = figure_without_pyplot(heatmaps_size(len(roles)))
            captions = [
                f"{role}\n{PurePosixPath(each.pair.image.key).parent.name}"
                for each, role in zip(loaded, roles.values(), strict=True)
            ]
            plot_heatmaps(images, maps, scores.result, masks, list(roles), captions, figures["heatmaps"])
        return figures
