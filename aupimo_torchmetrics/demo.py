"""The demo: train a small defect detector on real photographs and watch its AUPIMO grow, in about a minute on a CPU.

In the order of the work: `texture_tiles` cuts a photograph into tiles and plants defects in some, `train_detector`
trains a `TextureDetector` on the others, and `run_demo` is what `aupimo demo` does. The module needs the extra `demo`.
Nothing is downloaded: scikit-image holds the photographs.

The detector never sees a defect of the kinds it is tested on. It trains on normal tiles in which random regions are
overwritten with something else, and learns to find these regions: self-supervision like that of CutPaste (arXiv
2104.04015) and DRAEM (arXiv 2108.07610). Its maps are logits, as AUPIMO needs no scores between 0 and 1.

Conventions: images are float32 in [0, 1], `(N, 1, H, W)`, in steps of 1/255 as in the 8-bit photographs; masks are bool
of the same shape, true exactly where a planted defect has changed the photograph. All is computed by one thread of
torch, so that a seed gives the same numbers whatever number of threads the machine has: more threads round sums
differently, and a training makes the difference large. Another processor may round differently, too.
"""

import logging
import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, get_args

import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, interpolate
from torch.utils.data import DataLoader, TensorDataset

from aupimo_torchmetrics._errors import SettingError
from aupimo_torchmetrics._extras import require
from aupimo_torchmetrics._settings import Texture, check_choice
from aupimo_torchmetrics._tables import score_text
from aupimo_torchmetrics.functional import pimo
from aupimo_torchmetrics.metrics import AUPIMO
from aupimo_torchmetrics.plotting import plot_heatmaps, plot_pimo_curves
from aupimo_torchmetrics.plotting._figures import DEMO_SIZE, figure_without_pyplot, mean_text
from aupimo_torchmetrics.results import AUPIMOResult

__all__ = [
    "DemoReport",
    "TextureDetector",
    "TextureTiles",
    "anomaly_maps",
    "overwrite_regions",
    "run_demo",
    "save_tiles",
    "texture_tiles",
    "tile_keys",
    "train_detector",
]

TEXTURES: tuple[Texture, ...] = get_args(Texture)
"""Photographs of 512 x 512 pixels that every installation of scikit-image holds."""
DEFECTS = ("scratch", "blob", "patch")
"""Kinds of defects that can be planted."""
NORMAL = "normal"
"""What a tile without a defect has instead of the name of one."""
TRAIN_STRIDE, TRAIN_SHARE = 16, 0.375
"""Pixels from one training tile to the next, and the share of the photograph's width that they are cut from."""
MAX_LEVEL = 255
"""White in an 8-bit photograph."""

FPR_BOUNDS = (1e-3, 1e-2)
"""Looser than the paper's: in 20 normal tiles of 64 x 64 pixels, FPR 1e-3 is 82 pixels, and 1e-5 less than one."""
TRAIN_BATCH_SIZE, VALIDATION_BATCH_SIZE, LEARNING_RATE = 16, 8, 5e-3


class TextureTiles(NamedTuple):
    """Tiles of one photograph: normal ones to train on, and others, some with a defect, to validate on.

    Example:
        >>> import torch
        >>> from aupimo_torchmetrics.demo import texture_tiles
        >>> tiles = texture_tiles("grass")
        >>> tiles.train_images.shape, tiles.images.shape
        (torch.Size([261, 1, 64, 64]), torch.Size([40, 1, 64, 64]))
        >>> [defect == "normal" for defect in tiles.defects] == [not mask.any() for mask in tiles.masks]
        True

    """

    train_images: Tensor
    """(n, 1, H, W) float32 in [0, 1], normal tiles, which overlap each other but no validation tile."""
    images: Tensor
    """(N, 1, H, W) float32 in [0, 1], validation tiles, which do not overlap."""
    masks: Tensor
    """(N, 1, H, W) bool, true exactly where a planted defect has changed the photograph."""
    defects: tuple[str, ...]
    """N names: the defect of each validation tile, or `"normal"`."""
    intact_images: Tensor
    """(A, 1, H, W) float32 in [0, 1], the tiles with a defect before it was planted: more normal images, which are
    neither trained on nor validated on, to choose a threshold from."""


def texture_tiles(
    texture: Texture, seed: int = 0, *, tile_size: int = 64, anomalous_share: float = 0.5
) -> TextureTiles:
    """Cut a photograph into tiles to train on and tiles to validate on, and plant defects in some of the latter.

    The left part of the photograph is for training. The right part is cut into tiles that lie side by side; which of
    them get a defect, and what it looks like, is drawn at random. As many tiles get each kind of defect as get another,
    give or take one.

    Args:
        texture: One of `TEXTURES`.
        seed: Fixes which tiles get a defect and what it looks like.
        tile_size: Height and width of a tile in pixels, from 16 to 256.
        anomalous_share: Share of the validation tiles with a defect, in (0, 1); at least one tile is left for either
            class.

    Returns:
        Training tiles, validation tiles, masks, kinds of defects, and intact tiles. With the defaults 261 tiles to
        train on, 40 tiles, 20 of them anomalous, to validate on, and 20 intact ones.

    Raises:
        ValueError: If a texture is not known, or a size or share is out of its range.
        ModuleNotFoundError: If scikit-image is not installed.

    Example:
        >>> from aupimo_torchmetrics.demo import texture_tiles
        >>> tiles = texture_tiles("gravel", seed=1)
        >>> tiles.images.shape, tiles.masks.dtype
        (torch.Size([40, 1, 64, 64]), torch.bool)
        >>> tiles.defects.count("scratch"), tiles.defects.count("normal")
        (7, 20)

    """
    check_choice("texture", texture, Texture)
    require("skimage", extra="demo", needed_by="texture_tiles")
    photograph = _photograph(texture)
    if not 16 <= tile_size <= 256:  # room for a defect beside normal texture, and for both parts
        raise SettingError(f"Expected `tile_size` to be from 16 to 256, but got {tile_size}.")
    if not 0 < anomalous_share < 1:
        raise SettingError(f"Expected `anomalous_share` to be between 0 and 1, but got {anomalous_share}.")
    generator = Generator().manual_seed(seed)
    train_width = tile_size * max(round(TRAIN_SHARE * (photograph.shape[1] // tile_size)), 1)
    images = _cut(photograph[:, train_width:], tile_size, tile_size)
    others = [_photograph(name) for name in TEXTURES if name != texture]

    num_anomalous = min(max(round(anomalous_share * len(images)), 1), len(images) - 1)
    kinds = [NORMAL] * len(images)
    masks, intact = torch.zeros_like(images, dtype=torch.bool), images.clone()
    with _quiet_thread():
        for count, index in enumerate(torch.randperm(len(images), generator=generator)[:num_anomalous].tolist()):
            kinds[index] = kind = DEFECTS[count % len(DEFECTS)]
            other = others[_random_int(0, len(others) - 1, generator)]
            images[index, 0], masks[index, 0] = _plant_defect(images[index, 0], kind, generator, other)
    train_images = _cut(photograph[:, :train_width], tile_size, TRAIN_STRIDE)
    return TextureTiles(train_images, images, masks, tuple(kinds), intact[masks.flatten(1).any(1)])


def tile_keys(tiles: TextureTiles) -> list[str]:
    """Name the validation tiles by their defects and indices, as `save_tiles` writes them.

    Args:
        tiles: Tiles, as `texture_tiles` returns them.

    Returns:
        N texts such as `good/000` or `scratch/001`: path of each tile relative to the folder `test`, without suffix.

    Example:
        >>> from aupimo_torchmetrics.demo import texture_tiles, tile_keys
        >>> tile_keys(texture_tiles("brick"))[:2]
        ['good/000', 'scratch/001']

    """
    return [f"{'good' if defect == NORMAL else defect}/{index:03}" for index, defect in enumerate(tiles.defects)]


def save_tiles(tiles: TextureTiles, category: str | Path) -> list[str]:
    """Write the validation tiles to a folder in the layout of MVTec AD, to try things on that read a data set.

    Args:
        tiles: Tiles, as `texture_tiles` returns them.
        category: Folder of the category, made if need be: `test/DEFECT/000.png` and `ground_truth/DEFECT/000_mask.png`.

    Returns:
        Path of each tile relative to the folder, without suffix; a map of it is looked for under the same path.

    Raises:
        ModuleNotFoundError: If pillow is not installed.
        OSError: If a file cannot be written.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from aupimo_torchmetrics.demo import save_tiles, texture_tiles
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_tiles(texture_tiles("brick"), Path(folder, "brick"))[:2]
        ['test/good/000', 'test/scratch/001']

    """
    require("PIL", extra="demo", needed_by="save_tiles")
    from PIL import Image  # noqa: PLC0415

    keys = tile_keys(tiles)
    for key, image, mask in zip(keys, tiles.images, tiles.masks, strict=True):
        files = {f"test/{key}.png": (image * MAX_LEVEL).round()}
        if bool(mask.any()):
            files[f"ground_truth/{key}_mask.png"] = mask * MAX_LEVEL
        for name, pixels in files.items():
            path = Path(category, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels[0].to(torch.uint8).numpy()).save(path)
    return [f"test/{key}" for key in keys]


def _plant_defect(image: Tensor, defect: str, generator: Generator, other: Tensor) -> tuple[Tensor, Tensor]:
    """Plant a defect somewhere in an image (H, W): the image, and the mask, true where it differs by a grey level.

    A scratch is a thin, bent line, a blob a stain through which the texture shows, both brighter or darker than the
    photograph; a patch is a rectangle swapped for a piece of another photograph.
    """
    if defect == "patch":
        defective, mask = _patch(image, other, generator)
    else:
        mask = _scratch(image, generator) if defect == "scratch" else _blob(image, generator)
        opacity = _random(0.5, 0.9 if defect == "scratch" else 0.85, generator)
        tone = (0.05, 0.95)[_random_int(0, 1, generator)]
        defective = image + opacity * (tone - image)
    before, after = (image * MAX_LEVEL).round(), (defective * MAX_LEVEL).round().clamp(0, MAX_LEVEL)
    # A mask is true exactly where the photograph has changed: a pixel that already has the grey of the defect becomes
    # one level brighter, or darker if it is white.
    after = torch.where(after == before, torch.where(before < MAX_LEVEL, before + 1, before - 1), after)
    return torch.where(mask, after / MAX_LEVEL, image), mask


def _scratch(image: Tensor, generator: Generator) -> Tensor:
    """Mask (H, W) of a bent line between two random points."""
    start = torch.tensor([_random(0.2, 0.8, generator) * length for length in image.shape])
    angle, length = _random(0, 2 * math.pi, generator), _random(0.35, 0.75, generator) * min(image.shape)
    along = torch.tensor([math.sin(angle), math.cos(angle)]) * length
    across = torch.tensor([along[1], -along[0]]) * _random(-0.3, 0.3, generator)
    steps = torch.linspace(0, 1, 4 * int(length))[:, None]
    line = start + steps * along + 4 * steps * (1 - steps) * across
    distance: Tensor = torch.cdist(_pixel_coordinates(image), line).amin(1).view(image.shape)
    # At least one pixel lies within 0.71 of the start, which is in the image.
    return distance <= _random(0.75, 1.5, generator)


def _blob(image: Tensor, generator: Generator) -> Tensor:
    """Mask (H, W) of a round stain with a wavy outline."""
    centre = torch.tensor([_random(0.2, 0.8, generator) * length for length in image.shape])
    radius = _random(0.06, 0.16, generator) * min(image.shape)
    offset = _pixel_coordinates(image) - centre
    angle = torch.atan2(offset[:, 0], offset[:, 1])
    outline = torch.ones_like(angle)
    for wave in (2, 3, 5):
        outline += 0.15 * torch.sin(wave * angle + _random(0, 2 * math.pi, generator))
    distance: Tensor = offset.norm(dim=1)
    return (distance <= radius * outline + 1).view(image.shape)


def _patch(image: Tensor, other: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
    """A rectangle swapped for a piece of another image, half as far off in brightness: image (H, W) and mask (H, W)."""
    sizes = [int(_random(0.16, 0.32, generator) * length) for length in image.shape]
    place, source = (_random_place(each, sizes, generator) for each in (image, other))
    mask, defective = torch.zeros_like(image, dtype=torch.bool), image.clone()
    mask[place] = True
    defective[place] = other[source] + (image[place].mean() - other[source].mean()) / 2
    return defective, mask


def _photograph(texture: Texture) -> Tensor:
    """One of the photographs of scikit-image: (512, 512) float32 in [0, 1]."""
    from skimage import data  # noqa: PLC0415

    return torch.tensor(getattr(data, texture)(), dtype=torch.float32) / MAX_LEVEL


def _cut(photograph: Tensor, size: int, stride: int) -> Tensor:
    """Cut a photograph (H, W) into square tiles (n, 1, size, size), row by row; what is left over is dropped."""
    return photograph.unfold(0, size, stride).unfold(1, size, stride).reshape(-1, 1, size, size).contiguous()


def _pixel_coordinates(image: Tensor) -> Tensor:
    """(H * W, 2) rows and columns of the pixels of an image (H, W)."""
    return torch.cartesian_prod(*(torch.arange(length, dtype=torch.float32) for length in image.shape))


def _random_place(image: Tensor, sizes: Sequence[int], generator: Generator) -> tuple[slice, ...]:
    """Rows and columns of a rectangle of a size, somewhere in an image (H, W)."""
    starts = [_random_int(0, length - size, generator) for length, size in zip(image.shape, sizes, strict=True)]
    return tuple(slice(start, start + size) for start, size in zip(starts, sizes, strict=True))


def _random_int(low: int, high: int, generator: Generator) -> int:
    """A random integer from `low` to `high`, both included."""
    return int(torch.randint(low, high + 1, (), generator=generator))


def _random(low: float, high: float, generator: Generator) -> float:
    """A random number between `low` and `high`."""
    return low + (high - low) * float(torch.rand((), generator=generator))


class TextureDetector(nn.Module):
    """Small, fully convolutional detector of what does not belong in a texture.

    Attributes:
        results: Results of the validations of `train_detector`, the first that of the untrained detector.

    Example:
        >>> import torch
        >>> from aupimo_torchmetrics.demo import TextureDetector
        >>> TextureDetector()(torch.rand(2, 1, 64, 64)).shape
        torch.Size([2, 1, 64, 64])

    """

    def __init__(self) -> None:
        super().__init__()
        self.results: list[AUPIMOResult] = []
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
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, images: Tensor) -> Tensor:
        """Anomaly maps (N, 1, H, W), unbounded logits, of images (N, 1, H, W) in [0, 1]."""
        images = (4 * images - 2).to(memory_format=torch.channels_last)
        fine = self.fine(images)
        coarse = interpolate(self.coarse(fine), size=fine.shape[-2:], mode="bilinear")
        return self.head(torch.cat([fine, coarse], 1))  # type: ignore[no-any-return]


def train_detector(tiles: TextureTiles, epochs: int, seed: int = 0, log_to: Path | None = None) -> TextureDetector:
    """Validate a detector, train it, and validate it after each epoch; a terminal shows a bar of epochs with the score.

    Args:
        tiles: Tiles to train and validate on, as `texture_tiles` returns them.
        epochs: How often to go through the training tiles, at least 1; about a second each.
        seed: Fixes initial weights and training, with any number of threads. The state of torch's own generator is left
            as it was.
        log_to: Folder for event files of TensorBoard, with pictures of every fifth epoch. None for none.

    Returns:
        The trained detector, whose `results` are those of all validations.

    Raises:
        SystemExit: If training is stopped by Ctrl-C, as Lightning does.

    Example:
        >>> from aupimo_torchmetrics.demo import texture_tiles, train_detector
        >>> tiles = texture_tiles("brick")
        >>> few = tiles._replace(train_images=tiles.train_images[:32])
        >>> detector = train_detector(few, epochs=1)
        >>> len(detector.results)  # before training, and after the epoch
        2

    """
    from lightning.pytorch import LightningModule, Trainer  # noqa: PLC0415  loading it takes seconds
    from lightning.pytorch.loggers import TensorBoardLogger  # noqa: PLC0415
    from tqdm import tqdm  # noqa: PLC0415  Lightning needs it

    from aupimo_torchmetrics.lightning import AUPIMOCallback  # noqa: PLC0415

    class Training(LightningModule):
        """What Lightning asks of a model, with AUPIMO as any metric of torchmetrics."""

        def __init__(self) -> None:
            super().__init__()
            self.detector = detector
            self.aupimo = AUPIMO(fpr_bounds=FPR_BOUNDS)

        def training_step(self, batch: tuple[Tensor], _: int) -> Tensor:
            images, is_overwritten = overwrite_regions(*batch)
            loss = binary_cross_entropy_with_logits(self.detector(images), is_overwritten.float())
            self.log("train/loss", loss)
            return loss

        def validation_step(self, batch: tuple[Tensor, Tensor], _: int) -> None:
            self.aupimo.update(self.detector(batch[0]), batch[1])
            self.log("val/aupimo", self.aupimo)

        def on_validation_epoch_end(self) -> None:
            detector.results.append(self.aupimo.result())  # is not computed again for the log
            bar.update(len(detector.results) > 1)
            bar.set_postfix_str(f"AUPIMO {score_text(detector.results[-1].mean, 4)}")

        def configure_optimizers(self) -> Any:
            optimizer = torch.optim.AdamW(detector.parameters(), LEARNING_RATE)
            num_steps = int(self.trainer.estimated_stepping_batches)
            scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, num_steps)  # warm-up and decay
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    bar = tqdm(total=epochs, desc="training", unit="epoch", mininterval=0, disable=None)
    with bar, _quiet_thread(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        detector = TextureDetector()
        logger = TensorBoardLogger(log_to, name="tensorboard", default_hp_metric=False) if log_to else False
        callbacks: list[Any] = [AUPIMOCallback(every_n_epochs=5)] if log_to else []
        settings: dict[str, Any] = {"logger": logger, "callbacks": callbacks, "log_every_n_steps": 8}
        settings |= dict.fromkeys(["enable_checkpointing", "enable_model_summary", "enable_progress_bar"], False)
        trainer = Trainer(accelerator="cpu", devices=1, max_epochs=epochs, num_sanity_val_steps=0, **settings)
        train_loader = DataLoader(TensorDataset(tiles.train_images), TRAIN_BATCH_SIZE, shuffle=True, drop_last=True)
        validation_loader = DataLoader(TensorDataset(tiles.images, tiles.masks), VALIDATION_BATCH_SIZE)
        training = Training()
        trainer.validate(training, validation_loader, verbose=False)  # before training
        trainer.fit(training, train_loader, validation_loader)
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
        >>> from aupimo_torchmetrics.demo import anomaly_maps
        >>> anomaly_maps(torch.nn.Identity(), torch.zeros(3, 1, 4, 4)).shape
        torch.Size([3, 1, 4, 4])

    """
    detector.eval()
    with torch.no_grad(), _quiet_thread():
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
        >>> from aupimo_torchmetrics.demo import overwrite_regions
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
    height, width = images.shape[-2:]
    part = int(torch.randint(height // 5, height // 2, ()))
    enlarged = interpolate(images[..., :part, :part], size=(height, width), mode="bilinear")
    shrunk = interpolate(images, size=(part, part), mode="area").repeat(1, 1, height // part + 1, width // part + 1)
    return (images, enlarged, shrunk[..., :height, :width])[int(torch.randint(3, ()))]


def _uniform(images: Tensor, low: float, high: float) -> Tensor:
    """A random number between `low` and `high` for each image (N, 1, 1, 1)."""
    return torch.empty(len(images), 1, 1, 1).uniform_(low, high)


@contextmanager
def _quiet_thread() -> Iterator[None]:
    """Let torch compute with one thread, and mute notices of Lightning that do not matter here; other warnings stay."""
    log = logging.getLogger("lightning.pytorch")
    level, num_threads = log.level, torch.get_num_threads()
    log.setLevel(logging.WARNING)
    torch.set_num_threads(1)
    try:
        with warnings.catch_warnings():
            # 40 small tiles in memory need no worker processes; Lightning 2.6 calls what torch 2.13 deprecates.
            warnings.filterwarnings("ignore", ".*does not have many workers.*|.*LeafSpec.* is deprecated")
            yield
    finally:
        log.setLevel(level)
        torch.set_num_threads(num_threads)


@dataclass(frozen=True)
class DemoReport:
    """What a run of the demo found.

    Example:
        >>> from pathlib import Path
        >>> import torch
        >>> from aupimo_torchmetrics import AUPIMOResult
        >>> from aupimo_torchmetrics.demo import DemoReport, texture_tiles
        >>> tiles = texture_tiles("brick")
        >>> scores = torch.where(tiles.masks.any(3).any(2).any(1), 0.25, torch.nan)
        >>> paths = [f"test/{index}.png" for index in range(40)]
        >>> before = AUPIMOResult(scores, (1e-3, 1e-2), (0.5, 0.6), paths=paths)
        >>> after = AUPIMOResult(3 * scores, (1e-3, 1e-2), (0.5, 0.6), paths=paths)
        >>> report = DemoReport("brick", Path("aupimo_demo"), before, after)
        >>> print(report.summary().splitlines()[1])
        AUPIMO on brick: 0.250 before training, 0.750 after (chance 0.0039, best 1)

    """

    texture: Texture
    out: Path
    before: AUPIMOResult
    """Scores of the untrained detector, with the path of each image."""
    after: AUPIMOResult
    """Scores of the trained detector, with the path of each image."""

    def summary(self) -> str:
        """Text that says what was found, how to read it and where the files are."""
        lower, upper = self.after.fpr_bounds
        return f"""
AUPIMO on {self.texture}: {self.before.mean:.3f} before training, {self.after.mean:.3f} after \
(chance {self.after.chance:.4f}, best 1)

How to read it: of an average defect {self.after.mean:.0%} of the pixels are found at thresholds so strict that
of the pixels of normal images only 1 in {1 / lower:,.0f} to 1 in {1 / upper:,.0f} is falsely called anomalous.

{self.after}

Curves and heat maps: {self.out / "aupimo.png"}; scores: {self.out / "aupimos.json"}
Images and maps, to score or to choose a threshold from: data, maps and normal_maps in {self.out}
Scores and pictures while training: tensorboard --logdir {self.out}
"""


def run_demo(
    texture: Texture = "brick", epochs: int = 30, out: str | Path = "aupimo_demo", seed: int = 0
) -> DemoReport:
    """Train a detector on a texture, log its AUPIMO after each epoch, and write scores, a picture, images and maps.

    Args:
        texture: `"brick"`, `"grass"` or `"gravel"`.
        epochs: How often to go through the training tiles, at least 1.
        out: Folder for `aupimos.json`, `aupimo.png`, the validation tiles in `data` and their maps in `maps`, for
            `aupimo evaluate`, maps of other normal tiles in `normal_maps`, for `aupimo threshold`, and the event files
            of TensorBoard; it is made if need be. Event files of earlier runs stay, and each run has its own folder
            `tensorboard/version_*`.
        seed: Fixes defects, initial weights and training. Scores repeat exactly on one machine, with any number of
            threads. The state of torch's own generator is left as it was.

    Returns:
        Scores before and after training, and what is needed to explain them.

    Raises:
        ValueError: If there is no such texture, `epochs` is less than 1, or torch takes no such `seed`.
        ModuleNotFoundError: If a package of the extra `demo` is not installed.
        OSError: If a file cannot be written.
        KeyboardInterrupt: If the demo is stopped by Ctrl-C; its text says where finished files are.

    """
    require("matplotlib", "PIL", "skimage", "tifffile", extra="demo", needed_by="run_demo")
    if epochs < 1:
        raise SettingError(f"Expected `epochs` to be at least 1, but got {epochs}.")
    if not 0 <= seed < 2**63:
        raise SettingError(f"Expected `seed` to be from 0 to {2**63 - 1}, but got {seed}.")
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    try:
        tiles = texture_tiles(texture, seed)
        detector = train_detector(tiles, epochs, seed, log_to=out)
        paths = [f"test/{key}.png" for key in tile_keys(tiles)]
        before, after = (replace(detector.results[index], paths=paths) for index in (0, -1))
        after.save(out / "aupimos.json")
        maps, of_intact = anomaly_maps(detector, tiles.images), anomaly_maps(detector, tiles.intact_images)
        _save_picture(out / "aupimo.png", maps, tiles, after, texture)
        _save_maps(out / "maps" / texture, maps, save_tiles(tiles, out / "data" / texture))
        _save_maps(out / "normal_maps" / texture, of_intact, [f"{index:03}" for index in range(len(of_intact))])
    except (KeyboardInterrupt, SystemExit) as error:  # Lightning makes the latter of the former
        raise KeyboardInterrupt(f"stopped; what was finished is in {out}") from error
    return DemoReport(texture, out, before, after)


def _save_maps(category: Path, maps: Tensor, keys: Sequence[str]) -> None:
    """Write maps (N, 1, H, W), laid out like their images."""
    import tifffile  # noqa: PLC0415

    for key, anomaly_map in zip(keys, maps, strict=True):
        (category / key).parent.mkdir(parents=True, exist_ok=True)
        tifffile.imwrite(category / f"{key}.tiff", anomaly_map[0].numpy())


def _save_picture(path: Path, maps: Tensor, tiles: TextureTiles, result: AUPIMOResult, texture: Texture) -> None:
    """Draw PIMO curves beside the best, the median and the worst image, of maps (N, 1, H, W)."""
    by_score = [index for index in result.aupimos.argsort(stable=True).tolist() if not result.aupimos[index].isnan()]
    images = [by_score[-1], by_score[len(by_score) // 2], by_score[0]]
    figure = figure_without_pyplot(DEMO_SIZE)
    left, right = figure.subfigures(1, 2, width_ratios=[1, 1], squeeze=False)[0]
    plot_pimo_curves(pimo(maps, tiles.masks), result, images, left.subplots())
    plot_heatmaps(
        tiles.images[images], maps[images], result, tiles.masks[images], images, ["best", "median", "worst"], right
    )
    figure.suptitle(f"Defects planted in photographs of {texture}: AUPIMO {mean_text(result)}")
    figure.savefig(path, dpi=100)
