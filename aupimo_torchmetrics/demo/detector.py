"""A small defect detector, and how it is trained.

The detector never sees a defect of the kinds it is tested on. It trains on normal tiles in which random regions are
overwritten with something else, and learns to find these regions: self-supervision like that of CutPaste (arXiv
2104.04015) and DRAEM (arXiv 2108.07610). Its maps are logits, as AUPIMO needs no scores between 0 and 1.
"""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import TQDMProgressBar
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, interpolate
from torch.utils.data import DataLoader, TensorDataset

from aupimo_torchmetrics.demo.textures import TextureTiles
from aupimo_torchmetrics.metrics import AUPIMO
from aupimo_torchmetrics.results import AUPIMOResult

__all__ = [
    "Stopwatch",
    "TextureDetector",
    "anomaly_maps",
    "overwrite_regions",
    "train_detector",
]

FPR_BOUNDS = (1e-3, 1e-2)
"""Looser than the paper's: in 20 normal tiles of 64 x 64 pixels, FPR 1e-3 is 82 pixels, and 1e-5 less than one."""

TRAIN_BATCH_SIZE = 16

VALIDATION_BATCH_SIZE = 8

LEARNING_RATE = 5e-3


class Stopwatch:
    """Adds up the seconds spent in its `with` blocks.

    Example:
        >>> import time
        >>> from aupimo_torchmetrics.demo.detector import Stopwatch
        >>> stopwatch = Stopwatch()
        >>> for _ in range(2):
        ...     with stopwatch:
        ...         time.sleep(0.01)
        >>> stopwatch.seconds >= 0.02
        True

    """

    def __init__(self) -> None:
        self.seconds = 0.0

    def __enter__(self) -> None:
        self._start = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self.seconds += time.perf_counter() - self._start


class TextureDetector(LightningModule):
    """Small, fully convolutional detector of what does not belong in a texture.

    Attributes:
        aupimo: The metric, updated and logged in `validation_step`.
        results: Results of the validations so far, the first that of the untrained detector.
        metric_time: Seconds spent in the metric, all validations together.

    Example:
        >>> import torch
        >>> from aupimo_torchmetrics.demo.detector import TextureDetector
        >>> TextureDetector()(torch.rand(2, 1, 64, 64)).shape
        torch.Size([2, 1, 64, 64])

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

    def validation_step(self, batch: tuple[Tensor, Tensor], _: int) -> None:
        """Score the maps of validation tiles."""
        images, masks = batch
        maps = self(images)
        with self.metric_time:
            self.aupimo.update(maps, masks)
        self.log("val/aupimo", self.aupimo, prog_bar=True)

    def on_validation_epoch_end(self) -> None:
        """Keep the result for the summary; the metric does not compute it again for the log."""
        with self.metric_time:
            self.results.append(self.aupimo.result())

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """AdamW with a warm-up and a decay over the whole training."""
        optimizer = torch.optim.AdamW(self.parameters(), self.learning_rate)
        num_steps = int(self.trainer.estimated_stepping_batches)
        scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, self.learning_rate, num_steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def train_detector(
    tiles: TextureTiles,
    epochs: int,
    seed: int = 0,
    *,
    logger: Logger | None = None,
    callbacks: Sequence[Callback] = (),
) -> TextureDetector:
    """Validate a detector, train it, and validate it after each epoch.

    Args:
        tiles: Tiles to train and validate on, as `aupimo_torchmetrics.demo.textures.texture_tiles` returns them.
        epochs: How often to go through the training tiles, at least 1; about a second each on two CPU cores.
        seed: Fixes initial weights and training. The state of torch's own generator is left as it was.
        logger: Logger of Lightning. None for none.
        callbacks: Callbacks of Lightning.

    Returns:
        The trained detector, whose `results` are those of all validations.

    Raises:
        KeyboardInterrupt: If training is stopped by Ctrl-C.

    Example:
        >>> from aupimo_torchmetrics.demo.detector import train_detector
        >>> from aupimo_torchmetrics.demo.textures import texture_tiles
        >>> tiles = texture_tiles("brick")
        >>> few = tiles._replace(train_images=tiles.train_images[:32])
        >>> detector = train_detector(few, epochs=1)
        >>> len(detector.results)  # before training, and after the epoch
        2

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
        try:
            trainer.validate(detector, validation_loader, verbose=False)
            trainer.fit(detector, train_loader, validation_loader)
        except SystemExit as error:  # what Lightning makes of Ctrl-C
            raise KeyboardInterrupt from error
    return detector


def anomaly_maps(detector: nn.Module, images: Tensor) -> Tensor:
    """Return the anomaly maps of images, computed batch by batch.

    Args:
        detector: Model that makes maps of images.
        images: (N, 1, H, W) in [0, 1].

    Returns:
        (N, 1, H, W) what the detector, in evaluation mode, gives for the images; without gradients.

    Example:
        >>> import torch
        >>> from aupimo_torchmetrics.demo.detector import anomaly_maps
        >>> anomaly_maps(torch.nn.Identity(), torch.zeros(3, 1, 4, 4)).shape
        torch.Size([3, 1, 4, 4])

    """
    detector.eval()
    with torch.no_grad():
        return torch.cat([detector(batch) for batch in torch.split(images, VALIDATION_BATCH_SIZE)])


def overwrite_regions(images: Tensor) -> tuple[Tensor, Tensor]:
    """Overwrite irregular regions of normal images with something else.

    Args:
        images: (N, 1, H, W) in [0, 1].

    Returns:
        The overwritten images (N, 1, H, W) in [0, 1], and where they are overwritten (N, 1, H, W) bool. Elsewhere they
        are as they were.

    Example:
        >>> import torch
        >>> from aupimo_torchmetrics.demo.detector import overwrite_regions
        >>> images = torch.rand(2, 1, 32, 32)
        >>> overwritten, is_overwritten = overwrite_regions(images)
        >>> torch.equal(overwritten[~is_overwritten], images[~is_overwritten])
        True

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
    # The tile is mirrored at its border, where zeros would look like a defect.
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
    """Images (N, 1, H, W) enlarged, made smaller and repeated, or as they are: a similar texture of another scale."""
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


@contextmanager
def _quiet_lightning() -> Iterator[None]:
    """Mute notices of Lightning that do not matter for this run; errors and other warnings are shown."""
    log = logging.getLogger("lightning.pytorch")
    level = log.level
    log.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            # 40 small tiles in memory need no worker processes.
            warnings.filterwarnings("ignore", ".*does not have many workers.*")
            # Lightning 2.6 calls a function that torch 2.13 deprecates.
            warnings.filterwarnings("ignore", ".*LeafSpec.* is deprecated", FutureWarning)
            yield
    finally:
        log.setLevel(level)
