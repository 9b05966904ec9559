"""The callback: its settings, and what it does when.

Conventions: with several processes every rank takes part in the gathering of scores, and rank 0 draws, logs and saves.
"""

from __future__ import annotations

import math
import operator
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from lightning_utilities.core.rank_zero import rank_zero_info, rank_zero_warn

from aupimo_torchmetrics._extras import require
from aupimo_torchmetrics._settings import check_choice
from aupimo_torchmetrics.lightning import _loggers, _names
from aupimo_torchmetrics.lightning._epoch import Epoch
from aupimo_torchmetrics.lightning._images import ImageSource, checked_source
from aupimo_torchmetrics.lightning._names import Metrics
from aupimo_torchmetrics.lightning._packages import callback_bases
from aupimo_torchmetrics.metrics import AUPIMO
from aupimo_torchmetrics.results import AUPIMOResult

if TYPE_CHECKING:
    from lightning.pytorch import Callback, LightningModule, Trainer
else:
    Callback = type("Callback", callback_bases(), {"__doc__": "What Lightning calls."})

Saved: TypeAlias = Literal["last", "best"]


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

    Heat maps are of the maps and masks that the metric scored, whoever made them. The photographs are those of the
    batch in which it was updated: a tensor (N, C, H, W) under the name `image` or `images`, in a dictionary or an
    object; or the first tensor (N, C, H, W), if the batch is a tuple or a list. `images` says where else they are. If a
    step does not score the images of its batch in their order, `images` is a function that returns them by id, `{image
    id: image}`, and `update` is given `image_ids`. What has no photograph is skipped, with one hint. By default
    anomalous images are drawn, spread evenly over those that rank 0 sees. They are the same in each epoch if the data
    is not shuffled. At most twice as many as are drawn are held in memory, and one batch.

    Args:
        metric: Name of the metric's attribute, such as `"aupimo"`, or `"metrics.aupimo"` in a collection; or
            the name under which it is logged, such as `"val/aupimo"`. None for all.
        every_n_epochs: Draw figures and save in every n-th epoch of a fit; the two shares are logged in each. Separate
            validation and test runs always do all.
        images: Where in a batch the photographs are: a name, such as `"photo"`; or a function of the batch, which
            returns a tensor (N, C, H, W), a list of tensors (C, H, W) or (H, W), a dictionary of these by image id, or
            None if nothing of the batch is to be drawn; or, in a configuration, the path of a function, such as
            `"places.find_images"`. None for the usual names.
        num_heatmaps: How many heat maps to draw, 0 for none.
        heatmap_images: Which images to draw instead: their indices among those that the metric gets in the epoch (on
            rank 0), from 0. All of them are drawn, unless `num_heatmaps` is 0.
        save_to: Folder in which to save the result and the figures of each metric, in a folder with the name of the
            metric: `aupimos.json`, `aupimos.safetensors`, `distribution.png`, `curves.png` and `heatmaps.png`, as in
            `save_to/val/aupimo/curves.png`. None to save nothing.
        save: Which epoch to save: the `"last"`, or the one with the `"best"` mean score. An epoch with an undefined
            score is not saved.

    Raises:
        ModuleNotFoundError: If matplotlib is not installed.
        TypeError: If `heatmap_images` are no integers, or `images` is neither a text nor a function.
        ValueError: If a setting is out of its range or not known. When an epoch starts: if the module has no metric.
            When the sanity check ends: if there is none of the name `metric`; without a sanity check that is a warning.
            After a batch: if there are no photographs where `images` says that they are, or fewer than maps; an error
            of the function itself is raised there, too. The sanity check finds both before the training.

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
        images: ImageSource | None = None,
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
        self.images = checked_source(images)
        self.num_heatmaps = num_heatmaps
        self.heatmap_images = _checked_indices(heatmap_images)
        self.save_to = None if save_to is None else Path(save_to)
        self.save: Saved = save
        self.results: dict[str, AUPIMOResult] = {}
        self._best: dict[str, float] = {}
        self._epoch: Epoch | None = None
        self._tags: dict[str, dict[str, str]] = {"val": {}, "test": {}}  # by stage and attribute
        self._chosen: set[str] = set()  # attributes that `metric` was found to mean
        self._said: set[str] = set()

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
        """Raise if there is no metric; start to listen."""
        if not any(isinstance(each.metric, AUPIMO) for each in _names.find_metrics(pl_module).values()):
            raise ValueError(
                f"Expected {type(pl_module).__name__} to hold an AUPIMO metric, but got none. Assign it to an "
                "attribute, `self.aupimo = AUPIMO()`, in `__init__` or `configure_model`."
            )
        num_heatmaps = self.num_heatmaps if self._is_due(trainer) and trainer.is_global_zero else 0
        self.teardown()
        is_check = self.images is not None and self.num_heatmaps > 0
        self._epoch = Epoch(self.images, num_heatmaps, self.heatmap_images, is_check)
        self._epoch.listen(pl_module)

    def on_validation_batch_start(self, _: Trainer, pl_module: LightningModule, batch: Any, *place: int) -> None:
        """Hold the batch, whose `place` is its index and, if there are several, that of its loader."""
        if self._epoch is not None:
            self._epoch.start_batch(pl_module, batch, place[1] if len(place) > 1 else 0)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Score each metric that was updated, and log the shares of those whose name is known, on all ranks alike."""
        if self._epoch is None:
            return
        self._epoch.end_batches()
        if trainer.sanity_checking:
            return
        metrics = _names.metrics_of_all_ranks(trainer, pl_module)
        names = self._logged_names(trainer, metrics)
        self._score(trainer, self._epoch, self._selected(metrics, names))
        if not trainer.barebones:
            for attribute, tag in _names.unique_tags(names, self._epoch.scored).items():
                if "/dataloader_idx_" not in tag:  # Lightning 2.4 refuses to log these
                    shares = _loggers.shares(trainer, tag, self._epoch.scored[attribute])
                    # All ranks have the same values. `sync_dist` only avoids Lightning's warning.
                    pl_module.log_dict(shares, sync_dist=trainer.world_size > 1)
                    self._epoch.with_shares.add(attribute)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep the results, draw, log and save; by now the name of each metric that is logged is known."""
        if self._epoch is None:
            return
        stage, metrics = _names.stage_of(trainer), _names.metrics_of_all_ranks(trainer, pl_module)
        self._tags[stage].update(self._logged_names(trainer, metrics))
        names = {attribute: f"{stage}/{attribute.replace('.', '/')}" for attribute in metrics} | self._tags[stage]
        selected = self._selected(metrics, names)
        self._chosen.update(selected)
        if metrics and not self._chosen:
            self._miss_name(trainer, [*metrics, *self._tags[stage].values()])
        self._warn_of_images(trainer, self._epoch, selected)
        if not trainer.sanity_checking:
            self._tags[stage] = names
            self._score(trainer, self._epoch, selected)
            self._finish(trainer, self._epoch, metrics, _names.unique_tags(names, self._epoch.scored))
        self.teardown()

    on_test_start = on_validation_start
    on_test_batch_start = on_validation_batch_start  # type: ignore[assignment]  # Lightning gives no keywords
    on_test_epoch_end = on_validation_epoch_end
    on_test_end = on_validation_end

    def teardown(self, *_: Any, **__: Any) -> None:
        """Listen no more, and forget what belongs to one epoch."""
        if self._epoch is not None:
            self._epoch.stop()
        self._epoch = None

    on_exception = teardown

    def _is_due(self, trainer: Trainer) -> bool:
        """Whether to draw, log and save this epoch."""
        is_own_run = trainer.state.fn != "fit"
        return not trainer.sanity_checking and (is_own_run or (trainer.current_epoch + 1) % self.every_n_epochs == 0)

    def _logged_names(self, trainer: Trainer, metrics: Metrics) -> dict[str, str]:
        """Names by attribute, as rank 0 says, of the metrics that were logged by now or before or name themselves."""
        logged, before = _names.logged_names(trainer), self._tags[_names.stage_of(trainer)]
        names = {key: logged.get(id(each.logged)) or before.get(key) or each.own_name for key, each in metrics.items()}
        known: dict[str, str] = trainer.strategy.broadcast({key: name for key, name in names.items() if name})
        return known

    def _selected(self, metrics: Metrics, names: Mapping[str, str]) -> Metrics:
        """Metrics to log, as far as their names are known."""
        # Lightning may have given a name the index of a loader.
        named = {each for each, name in names.items() if self.metric in {name, name.partition("/dataloader_idx_")[0]}}
        chosen = {self.metric} if self.metric in metrics else named or self._chosen
        return {key: each for key, each in metrics.items() if self.metric is None or key in chosen}

    def _score(self, trainer: Trainer, epoch: Epoch, metrics: Metrics) -> None:
        """Ask the metrics that were updated for their results, which they remember; on all ranks alike."""
        for attribute, found in metrics.items():
            heard = epoch.heard_of(found)
            is_updated = found.metric.update_called and (heard is None or heard.num_images > 0)
            # A rank without a batch must take part in the gathering, too.
            if trainer.strategy.reduce_boolean_decision(is_updated, all=False):
                if found.logged is not found.metric:
                    found.logged.compute()  # with all categories, which warns of them together
                epoch.scored[attribute] = found.metric.result()

    def _finish(self, trainer: Trainer, epoch: Epoch, metrics: Metrics, tags: Mapping[str, str]) -> None:
        """Keep the result of each metric, log what was not logged, draw and save."""
        step = _names.logged_step(trainer)
        for attribute, tag in tags.items():
            result = self.results[tag] = epoch.scored[attribute]
            if attribute not in epoch.with_shares:
                _loggers.log_late(trainer, _loggers.shares(trainer, tag, result), step)
            if not self._is_due(trainer) or math.isnan(result.mean):
                continue
            best = self._best.get(tag, -math.inf)
            self._best[tag] = max(result.mean, best)
            if trainer.is_global_zero:
                save_to = self.save_to if self.save == "last" or result.mean > best else None
                pictures = epoch.pictures(metrics[attribute], result)
                _loggers.show(trainer.loggers, tag, result, pictures, step, save_to)
                self._hint(trainer, epoch)

    def _hint(self, trainer: Trainer, epoch: Epoch) -> None:
        """Say once where figures go nowhere, and why there are no heat maps."""
        loggers = sorted({type(logger).__name__ for logger in trainer.loggers if not _loggers.takes_figures(logger)})
        if loggers and self.save_to is None:
            self._say_once(
                "figures",
                f"AUPIMOCallback draws figures, but {' and '.join(loggers)} cannot take any: there they go nowhere. "
                "Those of TensorBoard, Weights & Biases, MLflow and Comet can, and `save_to` writes files.",
                rank_zero_info,
            )
        if epoch.problem:
            self._say_once(
                "photographs",
                f"AUPIMOCallback draws no heat maps where it finds no photographs. {epoch.problem} "
                "`AUPIMOCallback(images=...)` says where they are: a name in the batch, or a function of the batch, "
                "which returns them by id, `{image id: image}`, if a step scores others than its batch holds.",
                rank_zero_info,
            )

    def _warn_of_images(self, trainer: Trainer, epoch: Epoch, metrics: Metrics) -> None:
        """Warn once of a score that is of more images than meant, and of images to draw that are not there."""
        stage = "test" if trainer.testing else "validation"
        heard = {attribute: each for attribute, found in metrics.items() if (each := epoch.heard_of(found)) is not None}
        for attribute, each in heard.items():
            if len(each.loaders) > 1:
                self._say_once(
                    f"{attribute} pooled",
                    f"AUPIMO of `self.{attribute}` is that of the images of {len(each.loaders)} dataloaders together. "
                    'Give each a metric of its own: `help("aupimo_torchmetrics.lightning")` has the recipe.',
                )
            if each.num_earlier and not trainer.sanity_checking:
                self._say_once(
                    f"{attribute} earlier",
                    f"AUPIMO of `self.{attribute}` is not that of this epoch alone: when it began, the metric held "
                    f"{each.num_earlier} images of training steps, of the sanity check or of earlier epochs. Training "
                    "needs a metric of its own. Lightning resets a metric only if the object itself is logged: log it, "
                    f'`self.log("{_names.stage_of(trainer)}/aupimo", self.{attribute})`, or reset it in '
                    f"`on_{stage}_epoch_start`, `self.{attribute}.reset()`.",
                )
        num_images = max((each.num_images for each in heard.values()), default=0)
        missing = [str(index) for index in self.heatmap_images or () if index >= num_images > 0]
        if missing and epoch.num_heatmaps:
            self._say_once(
                "images",
                f"AUPIMOCallback cannot draw all of `heatmap_images`: there is no image {', '.join(missing)}. "
                f"This process had {num_images} images in the epoch, counted from 0.",
            )

    def _miss_name(self, trainer: Trainer, names: Sequence[str]) -> None:
        """Raise in the sanity check, or else warn, that the name is none of `names`, of which attributes come first."""
        text = (
            f"Expected {type(trainer.lightning_module).__name__} to hold the AUPIMO metric {self.metric!r}, but got "
            f"{', '.join(names)}. Give one of these names. That of an attribute, "
            f'`AUPIMOCallback("{names[0]}")`, is the same in validation and test.'
        )
        if trainer.sanity_checking:
            raise ValueError(text)
        self._say_once("name", f"AUPIMOCallback does nothing in this run. {text}")

    def _say_once(self, key: str, text: str, say: Callable[[str], Any] = rank_zero_warn) -> None:
        """Say something once, on rank 0."""
        if key not in self._said:
            self._said.add(key)
            say(text)


def _checked_indices(images: Iterable[Any] | None) -> list[int] | None:
    """Return indices of images as a list of integers; raise unless they are integers of at least 0, or None."""
    if images is None:
        return None
    try:
        indices = [operator.index(each) for each in images]
    except TypeError as error:
        text = f"Expected `heatmap_images` to be a list of integers, such as `[0, 5]`, but got {images!r}."
        raise TypeError(text) from error
    if min(indices, default=0) < 0:
        raise ValueError(f"Expected `heatmap_images` to be 0 or more, but got {min(indices)}. They count from 0.")
    return indices
