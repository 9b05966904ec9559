"""Where figures go: to loggers, each in its own way, and to the files of `save_to`.

Loggers are told apart by what they can do, because `lightning` and `pytorch_lightning` have different classes for them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from aupimo_torchmetrics._files.writing import replacing
from aupimo_torchmetrics.lightning._figures import draw_curves, draw_distribution, draw_heatmaps
from aupimo_torchmetrics.lightning._gallery import Shown
from aupimo_torchmetrics.results import AUPIMOResult

if TYPE_CHECKING:
    from lightning.pytorch import Trainer
    from matplotlib.figure import Figure


def shares(trainer: Trainer, tag: str, result: AUPIMOResult) -> dict[str, Tensor]:
    """Shares of the anomalous images with a score of exactly 0 and of exactly 1; NaN if there are no such images."""
    scores = result.aupimos[~result.aupimos.isnan()]
    is_file_store = any(_keeps_names_as_files(logger) for logger in trainer.loggers) and trainer.is_global_zero
    separator = "_" if trainer.strategy.broadcast(is_file_store) else "/"
    return {f"{tag}{separator}share_at_{score}": (scores == score).float().mean() for score in (0, 1)}


def log_late(trainer: Trainer, values: Mapping[str, Tensor], step: int) -> None:
    """Log scalars when an epoch has ended, after Lightning logged its own."""
    trainer.callback_metrics.update(values)
    trainer.logged_metrics.update(values)
    if trainer.is_global_zero:
        for logger in trainer.loggers:
            logger.log_metrics({name: float(value) for name, value in values.items()}, step=step)


def show(  # noqa: PLR0917
    loggers: Sequence[Any], tag: str, result: AUPIMOResult, pictures: Sequence[Shown], step: int, save_to: Path | None
) -> None:
    """Give histogram and figures of a metric to loggers, and save them with the result, unless `save_to` is None."""
    for logger in loggers:
        if not hasattr(logger, "log_image") and hasattr(getattr(logger, "experiment", None), "add_histogram"):
            logger.experiment.add_histogram(f"{tag}/scores", result.aupimos[~result.aupimos.isnan()].cpu(), step)
    with_figures = [logger for logger in loggers if takes_figures(logger)]
    if not with_figures and save_to is None:
        return
    figures = {"distribution": draw_distribution(result), "curves": draw_curves(result)}
    if pictures:
        figures["heatmaps"] = draw_heatmaps(result, pictures)
    if save_to is not None:
        _save_files(_folder_of(save_to, tag), result, figures)
    for name, figure in figures.items():
        for logger in with_figures:
            _log_figure(logger, f"{tag}/{name}", figure, step)


def takes_figures(logger: Any) -> bool:
    """Whether a logger of Lightning accepts figures or images."""
    places = logger, getattr(logger, "experiment", None)
    return any(hasattr(place, name) for place in places for name in ("log_image", "add_figure", "log_figure"))


def _keeps_names_as_files(logger: Any) -> bool:
    """Whether a logger is MLflow's with a file store, which has no room for `val/aupimo/x` beside `val/aupimo`."""
    uri = getattr(getattr(logger, "experiment", None), "tracking_uri", None)
    if not hasattr(logger, "run_id") or not isinstance(uri, str):
        return False
    return uri.startswith("file:") or not ("://" in uri or uri.startswith(("databricks", "uc")))


def _log_figure(logger: Any, tag: str, figure: Figure, step: int) -> None:
    """Give a figure to a logger that accepts figures or images."""
    if hasattr(logger, "log_image"):  # Weights & Biases
        logger.log_image(tag, [_as_array(figure)], step=step)
    elif hasattr(logger.experiment, "add_figure"):  # TensorBoard
        logger.experiment.add_figure(tag, figure, step)
    elif hasattr(logger, "run_id"):  # MLflow, which has no steps for files
        logger.experiment.log_figure(logger.run_id, figure, f"{tag}/step_{step:08d}.png")
    else:  # Comet
        logger.experiment.log_figure(figure_name=tag, figure=figure, step=step)


def _as_array(figure: Figure) -> NDArray[np.uint8]:
    """Pixels of a figure (H, W, 3)."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415

    canvas: Any = FigureCanvasAgg(figure)  # matplotlib has no types for its methods
    canvas.draw()
    pixels: NDArray[np.uint8] = np.asarray(canvas.buffer_rgba(), dtype=np.uint8)
    return np.ascontiguousarray(pixels[..., :3])


def _folder_of(root: Path, tag: str) -> Path:
    """Return the folder of a metric: a tag's parts between slashes are folders, different ones for different tags."""
    parts = [re.sub(r"[^\w. -]", lambda each: quote(each[0], safe=""), part) for part in tag.split("/")]
    return root.joinpath(*(part.replace(".", "%2E") if not part.strip(". ") else part for part in parts))


def _save_files(folder: Path, result: AUPIMOResult, figures: Mapping[str, Figure]) -> None:
    """Write a result and its figures to a folder; each file is replaced only when the new one is complete.

    Heat maps of an earlier epoch are removed if there are none of this one.
    """
    result.save(folder / "aupimos.json")
    for name, figure in figures.items():
        with replacing(folder / f"{name}.png") as unfinished:
            figure.savefig(unfinished, dpi=figure.dpi, format="png")
    if "heatmaps" not in figures:
        (folder / "heatmaps.png").unlink(missing_ok=True)
