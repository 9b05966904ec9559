"""Where figures go: to loggers, each in its own way, and to the files of `save_to`.

Loggers are told apart by what they can do, because `lightning` and `pytorch_lightning` have different classes for them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from aupimo_torchmetrics._files.writing import replacing
from aupimo_torchmetrics.results import AUPIMOResult

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["can_log_figures", "folder_of", "keeps_names_as_files", "log_figure", "log_histogram", "save_files"]

FIGURE_NAMES = ("distribution", "curves", "heatmaps")


def can_log_figures(logger: Any) -> bool:
    """Whether a logger of Lightning accepts figures or images."""
    if hasattr(logger, "log_image"):
        return True
    experiment = getattr(logger, "experiment", None)
    return hasattr(experiment, "add_figure") or hasattr(experiment, "log_figure")


def keeps_names_as_files(logger: Any) -> bool:
    """Whether a logger is MLflow's with a file store, which has no room for `val/aupimo/x` beside `val/aupimo`."""
    uri = getattr(getattr(logger, "experiment", None), "tracking_uri", None)
    if not hasattr(logger, "run_id") or not isinstance(uri, str):
        return False
    return uri.startswith("file:") or not ("://" in uri or uri.startswith(("databricks", "uc")))


def log_figure(logger: Any, tag: str, figure: Figure, step: int) -> None:
    """Give a figure to a logger that accepts figures or images."""
    if hasattr(logger, "log_image"):  # Weights & Biases
        logger.log_image(tag, [_as_array(figure)], step=step)
    elif hasattr(logger.experiment, "add_figure"):  # TensorBoard
        logger.experiment.add_figure(tag, figure, step)
    elif hasattr(logger, "run_id"):  # MLflow, which has no steps for files
        logger.experiment.log_figure(logger.run_id, figure, f"{tag}/step_{step:08d}.png")
    else:  # Comet
        logger.experiment.log_figure(figure_name=tag, figure=figure, step=step)


def log_histogram(logger: Any, tag: str, values: Any, step: int) -> None:
    """Give numbers to a logger that draws histograms, which is TensorBoard."""
    if not hasattr(logger, "log_image") and hasattr(getattr(logger, "experiment", None), "add_histogram"):
        logger.experiment.add_histogram(tag, values, step)


def _as_array(figure: Figure) -> NDArray[np.uint8]:
    """Pixels of a figure (H, W, 3)."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415

    canvas: Any = FigureCanvasAgg(figure)  # matplotlib has no types for its methods
    canvas.draw()
    pixels: NDArray[np.uint8] = np.asarray(canvas.buffer_rgba(), dtype=np.uint8)
    return np.ascontiguousarray(pixels[..., :3])


def folder_of(root: Path, tag: str) -> Path:
    """Return the folder of a metric: a tag's parts between slashes are folders, different ones for different tags."""
    parts = [re.sub(r"[^\w. -]", lambda each: quote(each[0], safe=""), part) for part in tag.split("/")]
    return root.joinpath(*(part.replace(".", "%2E") if not part.strip(". ") else part for part in parts))


def save_files(folder: Path, result: AUPIMOResult, figures: Mapping[str, Figure]) -> None:
    """Write a result and its figures to a folder; each file is replaced only when the new one is complete.

    A figure of an earlier epoch that there is not of this one is removed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    result.save(folder / "aupimos.json")
    for name in FIGURE_NAMES:
        path = folder / f"{name}.png"
        if name in figures:
            with replacing(path) as unfinished:
                figures[name].savefig(unfinished, dpi=figures[name].dpi, format="png")
        else:
            path.unlink(missing_ok=True)
