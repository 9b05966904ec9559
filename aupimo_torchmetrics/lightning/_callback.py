"""The callback: its settings, and what it does when.

Conventions: with several processes every rank takes part in the gathering of scores, and rank 0 draws, logs and saves.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

from lightning_utilities.core.rank_zero import rank_zero_info, rank_zero_warn
from torch import Tensor

from aupimo_torchmetrics._extras import require
from aupimo_torchmetrics._settings import check_choice
from aupimo_torchmetrics.lightning._epoch import Epoch
from aupimo_torchmetrics.lightning._figures import draw_curves, draw_distribution, draw_heatmaps
from aupimo_torchmetrics.lightning._gallery import Kept
from aupimo_torchmetrics.lightning._loggers import (
    can_log_figures,
    folder_of,
    keeps_names_as_files,
    log_figure,
    log_histogram,
    save_files,
)
from aupimo_torchmetrics.lightning._names import (
    FoundMetric,
    find_metrics,
    logged_names,
    logged_step,
    stage_of,
    unique_tags,
)
from aupimo_torchmetrics.lightning._packages import callback_bases
from aupimo_torchmetrics.lightning._sources import HeatmapSource, checked_images, checked_source
from aupimo_torchmetrics.lightning._texts import (
    earlier_images,
    impossible_images,
    missing_metric,
    no_figures,
    no_heatmaps,
    pooled_loaders,
    unknown_name,
)
from aupimo_torchmetrics.metrics import AUPIMO
from aupimo_torchmetrics.results import AUPIMOResult

if TYPE_CHECKING:
    from lightning.pytorch import Callback, LightningModule, Trainer
else:
    Callback = type("Callback", callback_bases(), {"__doc__": "What Lightning calls."})

__all__ = ["AUPIMOCallback", "Saved"]

Saved: TypeAlias = Literal["last", "best"]


class _Scored(NamedTuple):
    """What is known of a metric at the end of an epoch."""

    result: AUPIMOResult
    pictures: list[tuple[Kept, int | None]]
    update_count: int


class AUPIMOCallback(Callback):
    """Log what explains the AUPIMO of an epoch: distribution, curves and heat maps of the images.

    At the end of each validation and test epoch, for each `aupimo_torchmetrics.AUPIMO` of the LightningModule that was
    updated in it, beside the score that is logged as `val/aupimo`:

    - `val/aupimo/share_at_0`: share of the anomalous images with a score of exactly 0 (nothing of the defect is found),
    - `val/aupimo/share_at_1`: share with a score of exactly 1 (the whole defect is found at every threshold); both are
      scalars for any logger, `ModelCheckpoint` and `EarlyStopping` (`val/aupimo_share_at_0` with MLflow's file store,
      which cannot hold both `val/aupimo` and names below it),
    - `val/aupimo/scores`: histogram of the scores (TensorBoard),
    - `val/aupimo/distribution`: box plot of the scores, with a point for each image,
    - `val/aupimo/curves`: PIMO curves of the images nearest to the statistics of the box plot,
    - `val/aupimo/heatmaps`: a few images, and where in them the score comes from.

    All names begin with the name under which the metric object is logged, `self.log("val/aupimo", self.aupimo)`, in a
    collection and in anomalib's `Evaluator` too. If it is not logged as an object, they begin with the stage and the
    metric's attribute. Figures have the step of the scalars. They go to TensorBoard, Weights & Biases (and any logger
    with a method `log_image`), MLflow and Comet; other loggers get only the scalars. Nothing is logged in Lightning's
    sanity check, and no figure if the score is undefined. The score is computed only once.

    `callback.results["val/aupimo"]` is the `aupimo_torchmetrics.AUPIMOResult` of the last epoch, on all processes.
    Lightning resets a metric that is logged as an object when the epoch has ended. If it is not, reset it yourself; a
    warning says so if images of earlier epochs are in the result.

    Heat maps need images and anomaly maps. The callback looks for them in what the step returns, then in its batch.
    Both may be dictionaries or objects with the usual names, as in
    `return {"image": images, "anomaly_map": maps, "mask": masks}`. If the batch is a tuple or a list, its first tensor
    is taken for the images, and the first other one with the shape of the maps and only 0 and 1 in it for the masks.
    What does not fit together is skipped, with one hint. By default anomalous images are drawn, spread evenly over
    those that rank 0 sees. They are the same in each epoch if the data is not shuffled. At most twice as many as are
    drawn are held in memory, and one batch.

    Args:
        metric: Name of the metric's attribute, such as `"aupimo"`, or `"metrics.aupimo"` in a collection; or
            the name under which it is logged, such as `"val/aupimo"`. None for all.
        every_n_epochs: Draw figures and save in every n-th epoch of a fit; the two shares are logged in each. Separate
            validation and test runs always do all.
        heatmap_source: Where to find images, maps and masks. Three names, such as `("image", "anomaly_map", "mask")`;
            or a function of what the step returns and of its batch. It returns images (N, C, H, W), maps and masks
            (N, H, W) or (N, 1, H, W), or None if nothing of the batch is to be drawn; the masks may be None. None for
            the usual names.
        num_heatmaps: How many heat maps to draw, 0 for none.
        heatmap_images: Which images to draw instead: their indices in the epoch (on rank 0), from 0. All of them are
            drawn, unless `num_heatmaps` is 0.
        save_to: Folder in which to save the result and the figures of each metric, in a folder with the name of the
            metric: `aupimos.json`, `aupimos.safetensors`, `distribution.png`, `curves.png` and `heatmaps.png`, as in
            `save_to/val/aupimo/curves.png`. None to save nothing.
        save: Which epoch to save: the `"last"`, or the one with the `"best"` mean score. An epoch with an undefined
            score is not saved.

    Raises:
        ModuleNotFoundError: If matplotlib is not installed.
        TypeError: If `heatmap_images` are no integers.
        ValueError: If a setting is out of its range or not known. When an epoch starts: if the module has no metric.
            When the sanity check ends: if there is none of the name `metric`; without a sanity check that is a warning.
            After a batch: if a given `heatmap_source` finds no images, maps or masks in it, or if these do not fit
            together. The sanity check finds both before the training.

    Example:
        >>> from lightning.pytorch import Trainer
        >>> from aupimo_torchmetrics.lightning import AUPIMOCallback
        >>> trainer = Trainer(callbacks=[AUPIMOCallback(every_n_epochs=5)], accelerator="cpu", logger=False)

    """

    def __init__(
        self,
        metric: str | None = None,
        *,
        every_n_epochs: int = 1,
        heatmap_source: HeatmapSource | None = None,
        num_heatmaps: int = 4,
        heatmap_images: Sequence[int] | None = None,
        save_to: str | os.PathLike[str] | None = None,
        save: Saved = "last",
    ) -> None:
        require("matplotlib", extra="plot", needed_by="AUPIMOCallback")
        for name, value, lowest in (("every_n_epochs", every_n_epochs, 1), ("num_heatmaps", num_heatmaps, 0)):
            if value < lowest:
                raise ValueError(f"Expected `{name}` to be at least {lowest}, but got {value}.")
        check_choice("save", save, Saved)
        self.metric = metric
        self.every_n_epochs = every_n_epochs
        self.heatmap_source = checked_source(heatmap_source)
        self.num_heatmaps = num_heatmaps
        self.heatmap_images = checked_images(heatmap_images)
        self.save_to = None if save_to is None else Path(save_to)
        self.save: Saved = save
        self.results: dict[str, AUPIMOResult] = {}
        self._best: dict[str, float] = {}
        self._epoch: Epoch | None = None
        self._scored: dict[str, _Scored] = {}
        self._tags: dict[str, dict[str, str]] = {"val": {}, "test": {}}  # by stage and attribute
        self._is_source_checked = False
        self._chosen: set[str] = set()  # attributes that `metric` was found to mean
        self._with_shares: set[str] = set()  # attributes whose shares are logged in this epoch
        self._told: set[str] = set()

    @property
    def state_key(self) -> str:
        """Name of this callback in a checkpoint; each of several callbacks has its own."""
        return f"AUPIMOCallback[metric={self.metric}, save_to={self.save_to}, save={self.save}]"

    def state_dict(self) -> dict[str, Any]:
        """Return the best score of each metric so far, for a training that goes on from a checkpoint."""
        return {"best": dict(self._best)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the best scores from a checkpoint."""
        self._best = dict(state_dict["best"])

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:  # noqa: ARG002
        """Forget the best scores of another training; those of a checkpoint come in after this."""
        if stage == "fit" and trainer.current_epoch == 0 and trainer.global_step == 0:
            self._best = {}

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Raise if there is no metric; start to follow the batches."""
        metrics = find_metrics(pl_module)
        if not metrics:
            raise ValueError(missing_metric(pl_module))
        is_drawing = self._is_due(trainer) and trainer.is_global_zero
        is_check = not is_drawing and not self._is_source_checked
        num_heatmaps = self.num_heatmaps if is_drawing or is_check else 0
        self._let_go()
        self._epoch = Epoch(pl_module, self.heatmap_source, num_heatmaps, self.heatmap_images, is_check=is_check)

    def on_validation_batch_start(
        self,
        trainer: Trainer,  # noqa: ARG002
        pl_module: LightningModule,  # noqa: ARG002
        batch: Any,  # noqa: ARG002
        batch_idx: int,  # noqa: ARG002
        dataloader_idx: int = 0,
    ) -> None:
        """Look at the previous batch, which all callbacks have seen by now."""
        if self._epoch is not None:
            self._epoch.start_batch(dataloader_idx)

    def on_validation_batch_end(  # noqa: PLR0917  Lightning's signature
        self,
        trainer: Trainer,  # noqa: ARG002
        pl_module: LightningModule,  # noqa: ARG002
        outputs: Any,
        batch: Any,
        batch_idx: int,  # noqa: ARG002
        dataloader_idx: int = 0,  # noqa: ARG002
    ) -> None:
        """Keep a few images with their maps."""
        if self._epoch is not None:
            self._epoch.end_step(outputs, batch)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Score each metric that was updated, and log the shares of those whose name is known, on all ranks alike."""
        if self._epoch is None:
            return
        self._epoch.finish_batch()
        self._is_source_checked = True
        for attribute, loaders in self._epoch.loaders.items():
            if len(loaders) > 1:
                self._warn_once(f"{attribute} pooled", pooled_loaders(attribute, len(loaders)))
        if trainer.sanity_checking:
            return
        self._hint_at_images(self._epoch)
        metrics = find_metrics(pl_module)
        names = self._names(trainer, metrics)
        for attribute in self._selected(metrics, names):
            self._score(trainer, attribute, metrics[attribute].metric)
        if not getattr(trainer, "barebones", False):
            separator = _separator(trainer)
            for attribute, tag in unique_tags({each: names[each] for each in self._scored if each in names}).items():
                if "/dataloader_idx_" in tag:  # Lightning 2.4 refuses to log these
                    continue
                shares = _shares(f"{tag}{separator}", self._scored[attribute].result)
                # All ranks have the same values. `sync_dist` only avoids Lightning's warning.
                pl_module.log_dict(shares, sync_dist=trainer.world_size > 1)
                self._with_shares.add(attribute)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep the results, draw, log and save; by now the name of each metric that is logged is known."""
        if self._epoch is None:
            return
        metrics = find_metrics(pl_module)
        self._tags[stage_of(trainer)].update(self._names(trainer, metrics))
        names = {each: f"{stage_of(trainer)}/{each.replace('.', '/')}" for each in metrics}
        names.update(self._tags[stage_of(trainer)])
        selected = self._selected(metrics, names)
        self._chosen.update(selected)
        if metrics and not self._chosen:
            logged = [*self._tags[stage_of(trainer)].values()]
            text = unknown_name(pl_module, str(self.metric), [*metrics], logged)
            if trainer.sanity_checking:
                raise ValueError(text)
            self._warn_once("name", f"AUPIMOCallback does nothing in this run. {text}")
        if not trainer.sanity_checking:
            self._tags[stage_of(trainer)] = names
            for attribute in selected:
                self._score(trainer, attribute, metrics[attribute].metric)
            step = logged_step(trainer)
            for attribute, tag in unique_tags({each: names[each] for each in self._scored}).items():
                self.results[tag] = self._scored[attribute].result
                if attribute not in self._with_shares:
                    _log_late(trainer, _shares(f"{tag}{_separator(trainer)}", self.results[tag]), step)
                if self._is_due(trainer):
                    self._finish(trainer, attribute, tag, step)
        self._let_go()

    on_test_start = on_validation_start
    on_test_batch_start = on_validation_batch_start
    on_test_batch_end = on_validation_batch_end
    on_test_epoch_end = on_validation_epoch_end
    on_test_end = on_validation_end

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:  # noqa: ARG002
        """Let the batch and the images go."""
        self._let_go()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:  # noqa: ARG002
        """Let the batch and the images go, if the run was broken off."""
        self._let_go()

    def _is_due(self, trainer: Trainer) -> bool:
        """Whether to draw, log and save this epoch."""
        is_own_run = trainer.state.fn != "fit"
        return not trainer.sanity_checking and (is_own_run or (trainer.current_epoch + 1) % self.every_n_epochs == 0)

    def _names(self, trainer: Trainer, metrics: Mapping[str, FoundMetric]) -> dict[str, str]:
        """Names by attribute, as rank 0 says, of the metrics that were logged by now or before or name themselves."""
        logged, before = logged_names(trainer), self._tags[stage_of(trainer)]
        names = {
            attribute: logged.get(id(each.metric)) or before.get(attribute) or each.own_name
            for attribute, each in metrics.items()
        }
        known: dict[str, str] = trainer.strategy.broadcast({key: name for key, name in names.items() if name})
        return known

    def _selected(self, metrics: Mapping[str, FoundMetric], names: Mapping[str, str]) -> list[str]:
        """Attributes of the metrics to log, as far as their names are known."""
        if self.metric is None or self.metric in metrics:
            return [attribute for attribute in metrics if self.metric in {None, attribute}]
        named = [attribute for attribute in metrics if _is_named(names.get(attribute), self.metric)]
        return named or [attribute for attribute in metrics if attribute in self._chosen]

    def _score(self, trainer: Trainer, attribute: str, metric: AUPIMO) -> None:
        """Ask a metric for its result, unless nothing came in since; on all ranks alike."""
        if self._epoch is None:
            return
        known = self._scored.get(attribute)
        is_new = metric.update_called and self._epoch.has_updated(attribute, metric)
        is_new = is_new and (known is None or known.update_count != metric.update_count)
        # A rank without a batch must take part in the gathering, too.
        if not trainer.strategy.reduce_boolean_decision(is_new, all=False):
            return
        if attribute in self._epoch.with_earlier_images:
            self._warn_once(f"{attribute} earlier", earlier_images(attribute, stage_of(trainer)))
        result = metric.result()
        is_drawing = self._is_due(trainer) and trainer.is_global_zero and _has_scores(result)
        pictures = self._epoch.pictures(attribute, metric, result) if is_drawing else []
        self._scored[attribute] = _Scored(result, pictures, metric.update_count)

    def _finish(self, trainer: Trainer, attribute: str, tag: str, step: int) -> None:
        """Log and save what there is of a metric."""
        scored = self._scored[attribute]
        is_saved = self.save_to is not None and self._is_to_save(tag, scored.result)
        if not trainer.is_global_zero or not _has_scores(scored.result):
            return
        for logger in trainer.loggers:
            log_histogram(logger, f"{tag}/scores", scored.result.aupimos[~scored.result.aupimos.isnan()].cpu(), step)
        loggers = self._loggers(trainer)
        if not loggers and not is_saved:
            return
        figures = {"distribution": draw_distribution(scored.result), "curves": draw_curves(scored.result)}
        if scored.pictures:
            figures["heatmaps"] = draw_heatmaps(scored.result, scored.pictures)
        else:
            self._hint_at_heatmaps()
        if self.save_to is not None and is_saved:
            save_files(folder_of(self.save_to, tag), scored.result, figures)
        for name, figure in figures.items():
            for logger in loggers:
                log_figure(logger, f"{tag}/{name}", figure, step)

    def _is_to_save(self, tag: str, result: AUPIMOResult) -> bool:
        """Whether the result of this epoch is saved; note its score if it is the best so far."""
        is_best = result.mean > self._best.get(tag, -math.inf)  # False for NaN
        if is_best:
            self._best[tag] = result.mean
        return is_best or self.save == "last"

    def _loggers(self, trainer: Trainer) -> list[Any]:
        """Loggers that accept figures; say once if figures go nowhere because a logger does not."""
        without = sorted({type(logger).__name__ for logger in trainer.loggers if not can_log_figures(logger)})
        if without and self.save_to is None:
            self._tell("loggers", no_figures(without))
        return [logger for logger in trainer.loggers if can_log_figures(logger)]

    def _hint_at_images(self, epoch: Epoch) -> None:
        """Say once which of the given images were not in the epoch, if images were looked for."""
        missing = [index for index in self.heatmap_images or () if index >= epoch.num_images]
        if missing and epoch.has_found_images:
            self._warn_once("images", impossible_images(missing, epoch.num_images))

    def _hint_at_heatmaps(self) -> None:
        """Say once how to get heat maps, if images and maps were looked for and not found."""
        if self._epoch is not None and self._epoch.is_looking and not self._epoch.has_found_images:
            self._tell("heatmaps", no_heatmaps(self._epoch.problem))

    def _tell(self, key: str, text: str) -> None:
        """Say something once."""
        if key not in self._told:
            self._told.add(key)
            rank_zero_info(text)

    def _warn_once(self, key: str, text: str) -> None:
        """Warn once of something."""
        if key not in self._told:
            self._told.add(key)
            rank_zero_warn(text)

    def _let_go(self) -> None:
        """Forget what belongs to one epoch."""
        self._epoch, self._scored, self._with_shares = None, {}, set()


def _is_named(name: str | None, wanted: str) -> bool:
    """Whether a metric is logged under a name, which Lightning may have given the index of a loader."""
    return name is not None and wanted in {name, name.partition("/dataloader_idx_")[0]}


def _has_scores(result: AUPIMOResult) -> bool:
    """Whether any image has a score."""
    return not bool(result.aupimos.isnan().all())


def _separator(trainer: Trainer) -> str:
    """What stands between the name of a score and that of a share, on all ranks alike."""
    is_file_store = any(keeps_names_as_files(logger) for logger in trainer.loggers) and trainer.is_global_zero
    return "_" if trainer.strategy.broadcast(is_file_store) else "/"


def _shares(prefix: str, result: AUPIMOResult) -> dict[str, Tensor]:
    """Shares of the anomalous images with a score of exactly 0 and of exactly 1; NaN if there are no such images."""
    scores = result.aupimos[~result.aupimos.isnan()]
    return {f"{prefix}share_at_{score}": (scores == score).float().mean() for score in (0, 1)}


def _log_late(trainer: Trainer, values: Mapping[str, Tensor], step: int) -> None:
    """Log scalars when an epoch has ended, after Lightning logged its own."""
    trainer.callback_metrics.update(values)
    trainer.logged_metrics.update(values)
    if trainer.is_global_zero:
        for logger in trainer.loggers:
            logger.log_metrics({name: float(value) for name, value in values.items()}, step=step)
