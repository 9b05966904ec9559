"""Thresholds, one for each category: kept in a file, and found again by category.

`thresholds.json` holds under `thresholds` a number for each category, `{"thresholds": {"bottle": 0.5}}`, and beside it
how each was chosen. The category "" stands for all: for maps that lie in one folder, or a number that was given.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Real
from pathlib import Path
from typing import Any, NamedTuple

from aupimo_torchmetrics._errors import BadDataError, SettingError
from aupimo_torchmetrics._files.writing import write_text
from aupimo_torchmetrics._paths import as_name
from aupimo_torchmetrics._tables import json_text, text_table
from aupimo_torchmetrics._version import __version__
from aupimo_torchmetrics.evaluate.at_threshold import threshold_text
from aupimo_torchmetrics.results import OperatingPoint

__all__ = ["ALL", "ChosenThreshold", "Thresholds"]

ALL = ""
"""The category that stands for all."""
MAX_REASON = 200
"""Characters of a reason that is quoted, as it may quote the file."""


class ChosenThreshold(NamedTuple):
    """A threshold, and what it does to the normal images that it was chosen from."""

    category: str
    """Empty if it is for all."""
    num_images: int
    """Normal images."""
    point: OperatingPoint
    """What the threshold does to them."""
    warnings: list[str]


@dataclass(frozen=True)
class Thresholds:
    """A threshold for each category, in the unit of the anomaly maps. A pixel is called anomalous iff it reaches it.

    Attributes:
        values: Thresholds by category. "" stands for every category that is not named.
        rule: What they promise, a sentence; empty if they were not chosen here.
        chosen: How each was chosen, as far as it was.

    Example:
        >>> from aupimo_torchmetrics.evaluate import Thresholds
        >>> thresholds = Thresholds({"bottle": 0.5, "cable": 0.25})
        >>> thresholds.of("cable")
        0.25

    """

    values: Mapping[str, float]
    rule: str = ""
    chosen: Sequence[ChosenThreshold] = field(default=())

    def __post_init__(self) -> None:
        """Check that there is a number for each category, and keep them as Python's numbers.

        Raises:
            ValueError: If there is none, or one is no number.

        """
        numbers = dict[str, float]()
        for category, value in self.values.items():
            if isinstance(value, bool) or not isinstance(value, Real) or math.isnan(value):
                of_category = f" of {category!r}" if category else ""
                raise SettingError(f"Expected a number as threshold{of_category}, but got {value!r}.")
            numbers[as_name(category)] = float(value)
        if not numbers:
            raise SettingError("Expected a threshold for each category, but got none.")
        object.__setattr__(self, "values", numbers)  # of a frozen class

    @classmethod
    def read(cls, threshold: float | str | os.PathLike[str] | Thresholds) -> Thresholds:
        """Return thresholds of a number for all categories, of a file, or as they are.

        Raises:
            TypeError: If it is none of these.
            ValueError: If the number is NaN, or there is no such file.
            BadDataError: If the file does not hold thresholds.

        """
        if isinstance(threshold, Thresholds):
            return threshold
        if isinstance(threshold, (str, os.PathLike)):
            return cls.load(threshold)
        if isinstance(threshold, bool) or not isinstance(threshold, Real):
            raise TypeError(f"Expected `threshold` to be a number or a file, but got {type(threshold).__name__}.")
        return cls({ALL: float(threshold)})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Thresholds:
        """Read the thresholds in a file that `save` wrote, or in any JSON file `{"thresholds": {CATEGORY: NUMBER}}`.

        Raises:
            ValueError: If there is no such file.
            BadDataError: If it does not hold thresholds.

        """
        if not Path(path).is_file():
            raise SettingError(f"Expected `threshold` to be a number or a file, but there is no file {path}.")
        try:
            values = json.loads(Path(path).read_text(encoding="utf-8-sig"))["thresholds"]
            if not all(math.isfinite(value) for value in values.values()):
                raise BadDataError(f"Expected finite thresholds in {path}, but got {values}.")
            return cls(values)
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
            if isinstance(error, BadDataError):
                raise
            expected = '{"thresholds": {CATEGORY: NUMBER}}'
            raise BadDataError(f"Expected {path} to hold {expected} in JSON, but: {str(error)[:MAX_REASON]}") from error

    def of(self, category: str) -> float:
        """Return the threshold of a category.

        Raises:
            BadDataError: If there is none.

        """
        if category not in self.values and ALL not in self.values:
            known = ", ".join(self.values)
            raise BadDataError(f"Expected a threshold of {category!r}, but the thresholds are those of {known}.")
        return self.values[category if category in self.values else ALL]

    def summary(self) -> str:
        """Return a table of the thresholds and of what they do to the normal images, what they promise, and warnings.

        Returns:
            Lines of text.

        """
        rows = [["category", "images", "threshold", "FPR", "95 % interval", "alarms"]]
        for category, number, point, _ in self.chosen:
            low, high = point.shared_fpr_interval
            interval = "" if math.isnan(low) else f"{low:.2g} to {high:.2g}"
            alarms = f"{round(number * point.share_of_normal_images_with_alarm)} of {number}"
            rates = [threshold_text(point.threshold), f"{point.shared_fpr:.3g}", interval, alarms]
            rows.append([category or "(all)", str(number), *rates])
        lines = [text_table(rows, "<>>>>>"), "", self.rule]
        lines += [f"warning: {each.category or '(all)'}: {text}" for each in self.chosen for text in each.warnings]
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Return what the file holds: `thresholds`, `rule`, `version`, and under `chosen` what is known of each."""
        return {
            "thresholds": dict(self.values),
            "rule": self.rule,
            "version": __version__,
            "chosen": [
                {
                    "category": category,
                    "num_normal": number,
                    "threshold": point.threshold,
                    "shared_fpr": point.shared_fpr,
                    "shared_fpr_interval": list(point.shared_fpr_interval),
                    "share_of_normal_images_with_alarm": point.share_of_normal_images_with_alarm,
                    "warnings": texts,
                }
                for category, number, point, texts in self.chosen
            ],
        }

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the thresholds to a JSON file. An existing file is replaced only when the new one is complete.

        Raises:
            OSError: If the file cannot be written.

        """
        write_text(Path(path), f"{json_text(self.to_dict())}\n")
