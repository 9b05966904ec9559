"""The scores of one category, by image and by type of defect."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

from aupimo_torchmetrics.evaluate.other_metrics import OtherScore
from aupimo_torchmetrics.evaluate.pairing import Pair
from aupimo_torchmetrics.evaluate.reading import Size
from aupimo_torchmetrics.results import AUPIMOResult

__all__ = ["CategoryScores", "DefectScores", "MapFacts", "metric_title"]


def metric_title(metric: str) -> str:
    """Name a metric at the head of a column.

    Example:
        >>> from aupimo_torchmetrics.evaluate.category import metric_title
        >>> metric_title("f1_max")
        'F1 MAX'

    """
    return metric.upper().replace("_", " ")


class MapFacts(NamedTuple):
    """What is known of the map of an image beside its scores.

    Example:
        >>> from aupimo_torchmetrics.evaluate import MapFacts
        >>> MapFacts(num_pixels=16, max_score=15.0)
        MapFacts(num_pixels=16, max_score=15.0)

    """

    num_pixels: int
    """Pixels that count, which are all that are not ignored."""
    max_score: float
    """Highest score of these pixels."""


class DefectScores(NamedTuple):
    """Scores of the images with one type of defect.

    Example:
        >>> from aupimo_torchmetrics.evaluate import DefectScores
        >>> rows = [DefectScores("crack", 0, 5, aupimo=0.75), DefectScores("scratch", 1, 8, aupimo=0.5)]
        >>> min(rows, key=lambda row: row.aupimo).defect
        'scratch'

    """

    defect: str | None
    """Type of the defect, None if it is not known."""
    num_normal: int
    """Images of this type whose mask is empty."""
    num_anomalous: int
    """Images of this type with a defect."""
    aupimo: float
    """Mean AUPIMO of the images with a defect."""


@dataclass
class CategoryScores:
    """Scores of one category.

    Attributes:
        category: Name of the category.
        result: AUPIMO of its images, with their paths relative to the data set.
        other_scores: Metrics beside AUPIMO by name, as far as they were asked for.
        pairs: Images and maps in the order of the result.
        maps: What is known of their maps, in the same order.
        resized: Size of a map and size of its mask, for maps that were resized.
        warnings: Warnings of the metrics.
        num_skipped: Images of the category that were not scored, as their files are bad.

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
        >>> [round(row["aupimo"], 3) for row in scores.image_rows()]
        [nan, 0.899]

    """

    category: str
    result: AUPIMOResult
    other_scores: dict[str, OtherScore]
    pairs: list[Pair]
    maps: list[MapFacts]
    resized: set[tuple[Size, Size]]
    warnings: list[str]
    num_skipped: int = 0

    @property
    def num_anomalous(self) -> int:
        """Images that were scored and have a defect."""
        return sum(self._are_anomalous())

    @property
    def num_normal(self) -> int:
        """Images that were scored and have none."""
        return len(self.pairs) - self.num_anomalous

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

    def defects(self) -> list[DefectScores]:
        """Return the scores of each type of defect, sorted by name, of which there is an anomalous image."""
        by_defect: dict[str | None, list[tuple[bool, float]]] = {}
        scores = zip(self._are_anomalous(), self.result.aupimos.tolist(), strict=True)
        for pair, score in zip(self.pairs, scores, strict=True):
            by_defect.setdefault(pair.image.defect, []).append(score)
        rows = []
        for defect in sorted(by_defect, key=lambda name: (name is None, name or "")):
            anomalous = [score for is_anomalous, score in by_defect[defect] if is_anomalous]
            if anomalous:
                num_normal = len(by_defect[defect]) - len(anomalous)
                rows.append(DefectScores(defect, num_normal, len(anomalous), math.fsum(anomalous) / len(anomalous)))
        return rows

    def image_rows(self) -> list[dict[str, Any]]:
        """Return what is known of each image, with the names of `aupimo_torchmetrics.AUPIMOResult.to_dataframe`.

        Returns:
            `path`, `category`, `defect`, `is_anomalous`, `mask_pixels`, `aupimo`, `tpr_at_lower`, `tpr_at_upper`,
            `num_pixels` that count, `mask_share` of these, and `max_score` of the map, of each image in the order of
            the result. What is not known is None or NaN.

        """
        columns = ["is_anomalous", "mask_pixels", "aupimo", "tpr_at_lower", "tpr_at_upper"]
        known = self.result.to_dataframe()[columns].to_dict("records")
        return [
            {
                "path": pair.image.name,
                "category": self.category,
                "defect": pair.image.defect,
                **row,
                "num_pixels": facts.num_pixels,
                "mask_share": row["mask_pixels"] / facts.num_pixels,
                "max_score": facts.max_score,
            }
            for pair, row, facts in zip(self.pairs, known, self.maps, strict=True)
        ]

    def _are_anomalous(self) -> list[bool]:
        """Class of each image."""
        classes = self.result.image_classes
        return [] if classes is None else (classes > 0).tolist()
