"""What the callback says: errors about its metric, warnings that scores are of more images than meant, and hints."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

__all__ = [
    "earlier_images",
    "impossible_images",
    "missing_metric",
    "no_figures",
    "no_heatmaps",
    "pooled_loaders",
    "unknown_name",
]


def missing_metric(module: Any) -> str:
    """Say that a module has no metric."""
    return (
        f"Expected {type(module).__name__} to hold an AUPIMO metric, but got none. "
        "Assign it to an attribute, `self.aupimo = AUPIMO()`, in `__init__` or `configure_model`."
    )


def unknown_name(module: Any, asked: str, attributes: Sequence[str], logged: Sequence[str]) -> str:
    """Say that a module has no metric of a name, and which names there are."""
    return (
        f"Expected {type(module).__name__} to hold the AUPIMO metric {asked!r}, but got "
        f"{', '.join([*attributes, *logged])}. Give one of these names. That of an attribute, "
        f'`AUPIMOCallback("{attributes[0]}")`, is the same in validation and test.'
    )


def earlier_images(attribute: str, stage: str) -> str:
    """Say that a metric was not reset before the epoch of a stage, `"val"` or `"test"`."""
    hook = "on_test_epoch_start" if stage == "test" else "on_validation_epoch_start"
    return (
        f"AUPIMO of `self.{attribute}` is not that of this epoch alone: when it began, the metric held images of "
        "the sanity check or of earlier epochs. Lightning resets a metric only if the object itself is logged. Log it, "
        f'`self.log("{stage}/aupimo", self.{attribute})`, or reset it in `{hook}`, `self.{attribute}.reset()`.'
    )


def pooled_loaders(attribute: str, num_loaders: int) -> str:
    """Say that a metric was updated with the batches of several loaders."""
    return (
        f"AUPIMO of `self.{attribute}` is that of the images of {num_loaders} dataloaders together: the "
        "metric was updated with the batches of all of them. For a score of each use a metric for each, "
        "`self.aupimos = torch.nn.ModuleList(AUPIMO() for _ in loaders)`, and log it with "
        '`self.log(f"val/aupimo_{dataloader_idx}", self.aupimos[dataloader_idx], '
        "add_dataloader_idx=False)`."
    )


def no_figures(loggers: Sequence[str]) -> str:
    """Say that figures go nowhere, because loggers do not take them."""
    return (
        f"AUPIMOCallback draws figures, but {' and '.join(loggers)} cannot take any: there they go nowhere. "
        "TensorBoardLogger, WandbLogger, MLFlowLogger and CometLogger can, and `save_to` writes files."
    )


def no_heatmaps(problem: str) -> str:
    """Say how to get heat maps, if images and maps were looked for and not found."""
    return (
        "AUPIMOCallback found no images and anomaly maps to draw heat maps of. Return them from the step, "
        '`return {"image": images, "anomaly_map": maps, "mask": masks}`, or set `heatmap_source`.' + problem
    )


def impossible_images(indices: Sequence[int], num_images: int) -> str:
    """Say which images of `heatmap_images` were not in the epoch."""
    return (
        f"AUPIMOCallback cannot draw all of `heatmap_images`: there is no image {', '.join(map(str, indices))}. This "
        f"process had {num_images} images in the epoch, counted from 0."
    )
