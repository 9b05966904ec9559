"""How each metric was computed: a line to quote beside its values, without which they cannot be compared."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from aupimo_torchmetrics.evaluate.reading import size_text

__all__ = ["protocol_lines"]

NAMES = {"auroc": "AUROC", "aupr": "average precision", "f1_max": "highest F1"}
"""Of metrics of all pixels, and with `image_` in front of images."""
IMAGE_SCORES = {"max": "highest score of the map", "mean": "mean of the map"}
"""Scores of images; others are those of a share of the pixels."""


def protocol_lines(
    names: Iterable[str], settings: Mapping[str, Any], aupimo: str, *, has_scores: bool
) -> dict[str, str]:
    """Return a line for each metric.

    Args:
        names: Metrics beside AUPIMO.
        settings: Settings of the evaluation by name.
        aupimo: Line of AUPIMO, without the size of maps and masks.
        has_scores: Whether a table gives scores of images.

    Returns:
        The lines by the names of the metrics.

    """
    size, num_bins, image_score = (settings.get(name) for name in ("size", "num_bins", "image_score"))
    place = "at the size of the masks" if size is None else f"maps (bilinear) and masks (nearest) at {size_text(size)}"
    how = f"{'exact' if num_bins is None else f'{num_bins} bins'}, {place}"
    of_image = IMAGE_SCORES.get(image_score or "max", f"mean of the highest {str(image_score)[4:]} of the map")
    lines = {"aupimo": f"{aupimo}, {place}"}
    for name in names:
        kind = NAMES.get(name.removeprefix("image_"), name)
        lines[name] = f"{kind} of all pixels, {how}"
        if name == "aupro":
            lines[name] = f"AUPRO up to FPR {settings['fpr_limit']:g}, 8-connected regions, {how}"
        elif name == "au_spro":
            lines[name] = f"AU-sPRO up to FPR {settings['fpr_limit']:g}, regions of the annotation, exact, {place}"
        elif name.startswith("image_"):
            lines[name] = f"image {kind} of the {'score in the table' if has_scores else f'{of_image}, {place}'}"
    return lines
