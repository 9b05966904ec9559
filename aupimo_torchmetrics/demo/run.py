"""The demo: train a small defect detector on real photographs and watch its AUPIMO grow, in about a minute on a CPU.

The detector never sees a defect of the kinds it is judged by. It trains on tiles of a normal texture into which smooth
random noise cuts holes, filled with something else, and learns to find what does not belong: self-supervision in the
manner of CutPaste (arXiv 2104.04015) and DRAEM (arXiv 2108.07610). What it answers are logits, unbounded and
unnormalised, which is what AUPIMO wants.

This module needs the extra `demo`: Lightning, TensorBoard, matplotlib and scikit-image.
"""

from __future__ import annotations

import logging
import os
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import TQDMProgressBar
from lightning.pytorch.loggers import Logger, TensorBoardLogger
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, interpolate
from torch.utils.data import DataLoader, TensorDataset

from aupimo_torchmetrics.demo.textures import TextureTiles, save_tiles, texture_tiles
from aupimo_torchmetrics.functional import pimo
from aupimo_torchmetrics.lightning import AUPIMOCallback
from aupimo_torchmetrics.metrics import AUPIMO
from aupimo_torchmetrics.plotting import plot_heatmaps, plot_pimo_curves
from aupimo_torchmetrics.results import AUPIMOResult

DEFAULT_EPOCHS = 30
FPR_BOUNDS = (1e-3, 1e-2)
"""Looser than the paper's: in 20 normal tiles of 64 x 64 pixels, FPR 1e-3 is 82 pixels, and 1e-5 less than one."""
TRAIN_BATCH_SIZE = 16
VALIDATION_BATCH_SIZE = 8
LEARNING_RATE = 5e-3
EPOCHS_BETWEEN_PICTURES = 5
NUM_LISTED_IMAGES = 3
"""How many of the best and of the worst images the summary lists."""
SCORES_FILE, PICTURE_FILE = "aupimos.json", "aupimo.png"


class Stopwatch:
    """Adds up the seconds spent in its `with` blocks."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __enter__(self) -> None:
        self._start = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self.seconds += time.perf_counter() - self._start


class TextureDetector(LightningModule):
    """Small, fully convolutional detector of what does not belong into a texture.

    Attributes:
        aupimo: The metric, updated and logged in `validation_step`.
        results: Results of the validations so far, the first that of the untrained detector.
        metric_time: Seconds spent in the metric, all validations together.

    """

    def __init__(self, learning_rate: float = LEARNING_RATE) -> None:
        super().__init__()
        self.learning_rate = learning_rate
        self.fine = _convolution(1, 16, 5)
        self.coarse = nn.Sequential(
            _convolution(16, 32, stride=2),
            _convolution(32, 32, dilation=2),
            _convolution(32, 32, dilation=4),
            _convolution(32, 32, dilation=2),
            _convolution(32, 16, 1),
        )
        self.head = nn.Sequential(_convolution(32, 16), nn.Conv2d(16, 1, 1))
        # A third faster on a CPU than the default.
        self.to(memory_format=torch.channels_last)
        self.aupimo = AUPIMO(fpr_bounds=FPR_BOUNDS)
        self.results: list[AUPIMOResult] = []
        self.metric_time = Stopwatch()

    def forward(self, images: Tensor) -> Tensor:
        """Anomaly maps (N, 1, H, W), unbounded logits, of images (N, 1, H, W) in [0, 1]."""
        images = (4 * images - 2).to(memory_format=torch.channels_last)
        fine = self.fine(images)
        coarse = interpolate(self.coarse(fine), size=fine.shape[-2:], mode="bilinear")
        return self.head(torch.cat([fine, coarse], 1))  # type: ignore[no-any-return]

    def training_step(self, batch: tuple[Tensor], _: int) -> Tensor:
        """Find the pixels of normal tiles that were overwritten."""
        images, is_overwritten = overwrite_regions(batch[0])
        loss = binary_cross_entropy_with_logits(self(images), is_overwritten.float())
        self.log("train/loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], _: int) -> dict[str, Tensor]:
        """Score the maps of validation tiles; what is returned is for the pictures of `AUPIMOCallback`."""
        images, masks = batch
        maps = self(images)
        with self.metric_time:
            self.aupimo.update(maps, masks)
        self.log("val/aupimo", self.aupimo, prog_bar=True)
        return {"image": images, "anomaly_map": maps, "mask": masks}

    def on_validation_epoch_end(self) -> None:
        """Keep the result for the summary; what is computed here is not computed again for the log."""
        with self.metric_time:
            self.results.append(self.aupimo.result())

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """AdamW with a warm-up and a decay over the whole training."""
        optimizer = torch.optim.AdamW(self.parameters(), self.learning_rate)
        num_steps = int(self.trainer.estimated_stepping_batches)
        scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, self.learning_rate, num_steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


@dataclass(frozen=True)
class DemoReport:
    """What a run of the demo found."""

    texture: str
    out: Path
    tiles: TextureTiles
    before: AUPIMOResult
    """Scores of the untrained detector."""
    after: AUPIMOResult
    """Scores of the trained detector."""
    metric_seconds: float
    """Time spent in `update` and `compute`, all validations together."""
    seconds: float
    """Time of the whole run, from reading the photograph to writing the files."""

    def summary(self) -> str:
        """Text that says what was found, how to read it and where the files are."""
        lower, upper = self.after.fpr_bounds
        before, after = self.before.mean, self.after.mean
        threshold_at_upper, threshold_at_lower = self.after.threshold_bounds
        is_normal = self.after.aupimos.isnan()
        num_normal, num_pixels = int(is_normal.sum()), self.tiles.masks[is_normal].numel()
        metric_share = self.metric_seconds / self.seconds
        return f"""
AUPIMO on {self.texture}: {before:.3f} before training, {after:.3f} after (chance {self.after.chance:.4f}, best 1)

How to read it: of an average defect {after:.0%} of the pixels are found at thresholds so strict that of the pixels of
normal images only 1 in {1 / lower:,.0f} to 1 in {1 / upper:,.0f} is falsely called anomalous.
The bounds suit {num_pixels:,} normal pixels ({num_normal} tiles), of which FPR {lower:g} is {lower * num_pixels:.0f}; \
those of the paper need 100,000 or more.

{_table_of_images(self.after, self.tiles)}

Thresholds on the anomaly maps: {threshold_at_upper:.3f} at FPR {upper:g}, {threshold_at_lower:.3f} at FPR {lower:g}
Time in the metric: {self.metric_seconds:.2f} s of {self.seconds:.0f} s ({metric_share:.1%}), all updates and computes
Settings: {self.after.protocol}

Curves and heat maps: {self.out / PICTURE_FILE}
Score of each image: {self.out / SCORES_FILE}
Scores and pictures while training: tensorboard --logdir {self.out}
"""


def run_demo(
    texture: str = "brick",
    epochs: int = DEFAULT_EPOCHS,
    out: str | os.PathLike[str] = "aupimo_demo",
    seed: int = 0,
    *,
    saves_maps: bool = False,
) -> DemoReport:
    """Train a detector on a texture, log its AUPIMO after each epoch, and write scores and a picture.

    Args:
        texture: One of `aupimo_torchmetrics.demo.textures.TEXTURES`.
        epochs: How often to go through the training tiles, at least 1.
        out: Folder for the event files of TensorBoard, `aupimos.json` and `aupimo.png`; it is made if need be. Event
            files of earlier runs stay, and each run has its own folder `tensorboard/version_*`.
        seed: Fixes defects, initial weights and training. Scores repeat exactly on one machine; another number of CPU
            threads rounds otherwise, which training amplifies. The state of torch's own generator is left as it was.
        saves_maps: Whether to write the validation tiles to `data` and their anomaly maps to `maps`, for
            `aupimo evaluate`.

    Returns:
        Scores before and after training, and what is needed to explain them.

    Raises:
        ValueError: If there is no such texture or `epochs` is less than 1.

    """
    if epochs < 1:
        raise ValueError(f"Expected `epochs` to be at least 1, but got {epochs}.")
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    run_time = Stopwatch()
    with run_time:
        tiles = texture_tiles(texture, seed)
        logger = TensorBoardLogger(out, name="tensorboard", default_hp_metric=False)
        logger.log_hyperparams({"texture": texture, "epochs": epochs, "seed": seed})
        callbacks = [_ProgressBar(refresh_rate=4), AUPIMOCallback(every_n_epochs=EPOCHS_BETWEEN_PICTURES)]
        detector = train_detector(tiles, epochs, seed, logger=logger, callbacks=callbacks)
        before, after = detector.results[0], detector.results[-1]
        after.save(out / SCORES_FILE)
        maps = anomaly_maps(detector, tiles.images)
        _save_picture(out / PICTURE_FILE, maps, tiles, after, texture)
        if saves_maps:
            _save_maps(out / "maps" / texture, maps, save_tiles(tiles, out / "data" / texture))
    return DemoReport(texture, out, tiles, before, after, detector.metric_time.seconds, run_time.seconds)


def train_detector(
    tiles: TextureTiles,
    epochs: int = DEFAULT_EPOCHS,
    seed: int = 0,
    *,
    logger: Logger | None = None,
    callbacks: Sequence[Callback] = (),
) -> TextureDetector:
    """Validate a detector, train it, and validate it after each epoch.

    Args:
        tiles: What to train and validate on, as :func:`~aupimo_torchmetrics.demo.textures.texture_tiles` returns it.
        epochs: How often to go through the training tiles, at least 1; about a second each on two CPU cores.
        seed: Fixes initial weights and training. The state of torch's own generator is left as it was.
        logger: Logger of Lightning. None for none.
        callbacks: Callbacks of Lightning.

    Returns:
        The trained detector, whose `results` are those of all validations.

    """
    has_bar = any(isinstance(callback, TQDMProgressBar) for callback in callbacks)
    with torch.random.fork_rng(devices=[]), _quiet_lightning():
        torch.manual_seed(seed)
        detector = TextureDetector()
        trainer = Trainer(
            accelerator="cpu",
            devices=1,
            max_epochs=epochs,
            logger=logger or False,
            callbacks=list(callbacks),
            enable_checkpointing=False,
            enable_model_summary=False,
            enable_progress_bar=has_bar,
            log_every_n_steps=8,
            num_sanity_val_steps=0,  # the untrained detector is validated on all tiles instead
        )
        train_tiles = TensorDataset(tiles.train_images)
        train_loader = DataLoader(train_tiles, TRAIN_BATCH_SIZE, shuffle=True, drop_last=True)
        validation_loader = DataLoader(TensorDataset(tiles.images, tiles.masks), VALIDATION_BATCH_SIZE)
        trainer.validate(detector, validation_loader, verbose=False)
        trainer.fit(detector, train_loader, validation_loader)
    return detector


def anomaly_maps(detector: nn.Module, images: Tensor) -> Tensor:
    """Return the anomaly maps (N, 1, H, W) that a detector gives of images (N, 1, H, W), batch by batch."""
    detector.eval()
    with torch.no_grad():
        return torch.cat([detector(batch) for batch in torch.split(images, VALIDATION_BATCH_SIZE)])


def overwrite_regions(images: Tensor) -> tuple[Tensor, Tensor]:
    """Overwrite irregular regions of normal images with something else.

    Args:
        images: (N, 1, H, W) in [0, 1].

    Returns:
        The overwritten images (N, 1, H, W) in [0, 1], and where they are overwritten (N, 1, H, W) bool.

    """
    is_overwritten = _smooth_noise(images) > _uniform(images, 1.0, 2.0)
    source = _rescaled(images[torch.randperm(len(images))])
    mean = source.mean((2, 3), keepdim=True)
    filling = _uniform(images, 0.0, 1.0) + (source - mean) * _uniform(images, 0.0, 1.3)
    filling += _smooth_noise(images) * 0.25 * _uniform(images, 0.0, 1.0) ** 2
    overwritten = images + _uniform(images, 0.4, 1.0) * (filling - images)
    return torch.where(is_overwritten, overwritten, images).clamp(0, 1), is_overwritten


def _convolution(num_in: int, num_out: int, size: int = 3, **options: int) -> nn.Sequential:
    """Convolution that keeps the size (at stride 1), batch norm and ReLU."""
    # Zeros around a tile would look like a defect at its border.
    padding = options.get("dilation", 1) * (size // 2)
    convolution = nn.Conv2d(num_in, num_out, size, padding=padding, padding_mode="reflect", bias=False, **options)
    return nn.Sequential(convolution, nn.BatchNorm2d(num_out), nn.ReLU())


def _smooth_noise(images: Tensor) -> Tensor:
    """Noise (N, 1, H, W) of mean 0 and variance 1, of random smoothness along the rows and along the columns."""
    rows, columns = (2 ** int(torch.randint(1, 6, ())) for _ in range(2))
    grid = torch.randn(len(images), 1, rows, columns)
    noise = interpolate(grid, size=images.shape[-2:], mode="bicubic")
    return noise / noise.std((2, 3), keepdim=True)


def _rescaled(images: Tensor) -> Tensor:
    """Images (N, 1, H, W) seen from nearer, from farther away, or as they are: another texture, made from this one."""
    size = images.shape[-2:]
    part = int(torch.randint(size[0] // 5, size[0] // 2, ()))
    view = int(torch.randint(3, ()))
    if view == 0:
        return images
    if view == 1:
        return interpolate(images[..., :part, :part], size=size, mode="bilinear")
    shrunk = interpolate(images, size=(part, part), mode="area")
    return shrunk.repeat(1, 1, size[0] // part + 1, size[1] // part + 1)[..., : size[0], : size[1]]


def _uniform(images: Tensor, low: float, high: float) -> Tensor:
    """A random number between `low` and `high` for each image (N, 1, 1, 1)."""
    return torch.empty(len(images), 1, 1, 1).uniform_(low, high)


class _ProgressBar(TQDMProgressBar):
    """Lightning's bar without the version number of the log folder."""

    def get_metrics(self, trainer: Trainer, module: LightningModule) -> dict[str, Any]:
        return {name: value for name, value in super().get_metrics(trainer, module).items() if name != "v_num"}


@contextmanager
def _quiet_lightning() -> Iterator[None]:
    """Silence notices of Lightning that say nothing about this run; errors and other warnings pass."""
    log = logging.getLogger("lightning.pytorch")
    level = log.level
    log.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            # 40 small tiles in memory need no worker processes.
            warnings.filterwarnings("ignore", ".*does not have many workers.*")
            # Lightning 2.6 asks torch 2.13 in an outdated way.
            warnings.filterwarnings("ignore", ".*LeafSpec.* is deprecated", FutureWarning)
            yield
    finally:
        log.setLevel(level)


def _table_of_images(result: AUPIMOResult, tiles: TextureTiles) -> str:
    """Lines with the best and the worst images of all."""
    by_score = _by_score(result)
    num_listed = min(NUM_LISTED_IMAGES, len(by_score) // 2)
    lines = [f"{'':7}{'image':>5}  {'defect':<8}{'mask pixels':>11}{'AUPIMO':>8}"]
    for name, images in (("best", by_score[::-1][:num_listed]), ("worst", by_score[:num_listed])):
        for rank, image in enumerate(images):
            title = name if rank == 0 else ""
            num_pixels = int(tiles.masks[image].sum())
            score = float(result.aupimos[image])
            lines.append(f"{title:7}{image:>5}  {tiles.defects[image]:<8}{num_pixels:>11}{score:>8.3f}")
    return "\n".join(lines)


def _by_score(result: AUPIMOResult) -> list[int]:
    """Places of the anomalous images, worst first."""
    num_anomalous = int((~result.aupimos.isnan()).sum())
    return result.aupimos.argsort(stable=True)[:num_anomalous].tolist()  # NaN, of normal images, comes last


def _save_maps(category: Path, maps: Tensor, keys: Sequence[str]) -> None:
    """Write maps (N, 1, H, W), laid out like their images."""
    import tifffile  # noqa: PLC0415

    for key, anomaly_map in zip(keys, maps, strict=True):
        (category / key).parent.mkdir(parents=True, exist_ok=True)
        tifffile.imwrite(category / f"{key}.tiff", anomaly_map[0].numpy())


def _save_picture(path: Path, maps: Tensor, tiles: TextureTiles, result: AUPIMOResult, texture: str) -> None:
    """Draw PIMO curves beside the best, the median and the worst image, of maps (N, 1, H, W)."""
    from matplotlib.figure import Figure  # noqa: PLC0415

    by_score = _by_score(result)
    chosen = {"best": by_score[-1], "median": by_score[len(by_score) // 2], "worst": by_score[0]}

    images = list(chosen.values())

    # A figure without pyplot needs no display and leaves nothing open.
    figure = Figure(figsize=(13, 5.2), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=[1, 1], squeeze=False)[0]
    plot_pimo_curves(pimo(maps, tiles.masks), result, images, left.subplots())
    captions = [f"{name}: {tiles.defects[image]}" for name, image in chosen.items()]
    plot_heatmaps(tiles.images[images], maps[images], result, tiles.masks[images], images, captions, right)
    right.suptitle("The mean of the pixel AUPIMO within the outline is the score", fontsize="medium")
    figure.suptitle(f"Defects planted in photographs of {texture}: AUPIMO {result.mean:.2f}")
    figure.savefig(path, dpi=100)
