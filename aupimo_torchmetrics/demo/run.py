"""What `aupimo demo` does: train, log, and write scores and pictures."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from aupimo_torchmetrics._errors import SettingError
from aupimo_torchmetrics._extras import require
from aupimo_torchmetrics._settings import Texture
from aupimo_torchmetrics._tables import text_table
from aupimo_torchmetrics.demo.textures import TextureTiles, save_tiles, texture_tiles, tile_keys
from aupimo_torchmetrics.functional import pimo
from aupimo_torchmetrics.plotting import plot_heatmaps, plot_pimo_curves
from aupimo_torchmetrics.plotting._figures import DEMO_SIZE, figure_without_pyplot
from aupimo_torchmetrics.results import AUPIMOResult

__all__ = ["DemoReport", "run_demo"]

MAX_SEED = 2**63 - 1
EPOCHS_BETWEEN_PICTURES = 5

NUM_LISTED_IMAGES = 3
"""How many of the best and of the worst images the summary lists."""

SCORES_FILE, PICTURE_FILE = "aupimos.json", "aupimo.png"


@dataclass(frozen=True)
class DemoReport:
    """What a run of the demo found.

    Example:
        >>> from pathlib import Path
        >>> import torch
        >>> from aupimo_torchmetrics import AUPIMOResult
        >>> from aupimo_torchmetrics.demo.run import DemoReport
        >>> from aupimo_torchmetrics.demo.textures import texture_tiles
        >>> tiles = texture_tiles("brick")
        >>> scores = torch.where(tiles.masks.any(3).any(2).any(1), 0.25, torch.nan)
        >>> paths = [f"test/{index}.png" for index in range(40)]
        >>> before = AUPIMOResult(scores, (1e-3, 1e-2), (0.5, 0.6), paths=paths)
        >>> after = AUPIMOResult(3 * scores, (1e-3, 1e-2), (0.5, 0.6), paths=paths)
        >>> report = DemoReport("brick", Path("aupimo_demo"), tiles, before, after, metric_seconds=0.5, seconds=25)
        >>> print(report.summary().splitlines()[1])
        AUPIMO on brick: 0.250 before training, 0.750 after (chance 0.0039, best 1)

    """

    texture: Texture
    out: Path
    tiles: TextureTiles
    before: AUPIMOResult
    """Scores of the untrained detector, with the path of each image."""
    after: AUPIMOResult
    """Scores of the trained detector, with the path of each image."""
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
    texture: Texture = "brick",
    epochs: int = 30,
    out: str | os.PathLike[str] = "aupimo_demo",
    seed: int = 0,
    *,
    save_maps: bool = False,
) -> DemoReport:
    """Train a detector on a texture, log its AUPIMO after each epoch, and write scores and a picture.

    Args:
        texture: `"brick"`, `"grass"` or `"gravel"`.
        epochs: How often to go through the training tiles, at least 1.
        out: Folder for the event files of TensorBoard, `aupimos.json` and `aupimo.png`; it is made if need be. Event
            files of earlier runs stay, and each run has its own folder `tensorboard/version_*`.
        seed: Fixes defects, initial weights and training. Scores repeat exactly on one machine. With another number of
            CPU threads sums are rounded differently, and training makes the difference larger. The state of torch's own
            generator is left as it was.
        save_maps: Whether to write the validation tiles to `data` and their anomaly maps to `maps`, for
            `aupimo evaluate`, and maps of other normal tiles to `normal_maps`, for `aupimo threshold`.

    Returns:
        Scores before and after training, and what is needed to explain them.

    Raises:
        ValueError: If there is no such texture, `epochs` is less than 1, or torch takes no such `seed`.
        ModuleNotFoundError: If a package of the extra `demo` is not installed.
        OSError: If a file cannot be written.
        KeyboardInterrupt: If the demo is stopped by Ctrl-C; its text says what had been written.

    """
    require("matplotlib", "PIL", "skimage", "tifffile", extra="demo", needed_by="run_demo")
    if epochs < 1:
        raise SettingError(f"Expected `epochs` to be at least 1, but got {epochs}.")
    if not 0 <= seed <= MAX_SEED:
        raise SettingError(f"Expected `seed` to be from 0 to {MAX_SEED}, but got {seed}.")
    from lightning.pytorch.loggers import TensorBoardLogger  # noqa: PLC0415  loading it takes seconds

    from aupimo_torchmetrics.demo.detector import Stopwatch, anomaly_maps, train_detector  # noqa: PLC0415
    from aupimo_torchmetrics.lightning import AUPIMOCallback  # noqa: PLC0415

    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    run_time = Stopwatch()
    with run_time, _saying_what_is_saved(out, texture):
        tiles = texture_tiles(texture, seed)
        logger = TensorBoardLogger(out, name="tensorboard", default_hp_metric=False)
        logger.log_hyperparams({"texture": texture, "epochs": epochs, "seed": seed})
        callbacks = [AUPIMOCallback(every_n_epochs=EPOCHS_BETWEEN_PICTURES), *_progress_bar()]
        detector = train_detector(tiles, epochs, seed, logger=logger, callbacks=callbacks)
        paths = [f"test/{key}.png" for key in tile_keys(tiles)]
        before, after = (replace(detector.results[index], paths=paths) for index in (0, -1))
        after.save(out / SCORES_FILE)
        maps = anomaly_maps(detector, tiles.images)
        _save_picture(out / PICTURE_FILE, maps, tiles, after, texture)
        if save_maps:
            _write_maps(out / "maps" / texture, maps, save_tiles(tiles, out / "data" / texture))
            of_intact = anomaly_maps(detector, tiles.intact_images)
            _write_maps(out / "normal_maps" / texture, of_intact, [f"{index:03}" for index in range(len(of_intact))])
    return DemoReport(texture, out, tiles, before, after, detector.metric_time.seconds, run_time.seconds)


@contextmanager
def _saying_what_is_saved(out: Path, texture: Texture) -> Iterator[None]:
    """Name the files that an interrupted run has written; events, images and maps by their folders."""
    before = {path: _last_change(path) for path in _files_of_a_run(out, texture)}
    try:
        yield
    except KeyboardInterrupt as error:
        saved = [str(path) for path in _files_of_a_run(out, texture) if _last_change(path) != before.get(path)]
        raise KeyboardInterrupt(f"stopped; saved: {', '.join(saved) or 'nothing'}") from error


def _files_of_a_run(out: Path, texture: Texture) -> list[Path]:
    """Files and folders that a run writes, as far as they are there."""
    folders = (out / name / texture for name in ("data", "maps", "normal_maps"))
    others = (out / SCORES_FILE, out / PICTURE_FILE, *folders)
    return [*sorted(out.glob("tensorboard/*")), *filter(Path.exists, others)]


def _last_change(path: Path) -> int:
    """Time of the last change of a file, or of anything in a folder, in nanoseconds."""
    return max(each.stat().st_mtime_ns for each in (path, *path.rglob("*")))


def _progress_bar() -> list[Any]:
    """Return a bar for a terminal, and none for a file, in which it would be a line for each step."""
    from lightning.pytorch.callbacks import TQDMProgressBar  # noqa: PLC0415

    class ProgressBar(TQDMProgressBar):
        """Lightning's bar without the version number of the log folder."""

        def get_metrics(self, *args: Any) -> dict[str, Any]:
            return {name: value for name, value in super().get_metrics(*args).items() if name != "v_num"}

    return [ProgressBar(refresh_rate=4)] if sys.stdout.isatty() else []


def _table_of_images(result: AUPIMOResult, tiles: TextureTiles) -> str:
    """Lines with the best and the worst images of all."""
    by_score = _by_score(result)
    num_listed = min(NUM_LISTED_IMAGES, len(by_score) // 2)
    paths = result.paths or []
    rows = [["", "image", "mask pixels", "AUPIMO"]]
    for title, indices in (("best", by_score[::-1][:num_listed]), ("worst", by_score[:num_listed])):
        for rank, index in enumerate(indices):
            num_pixels, score = int(tiles.masks[index].sum()), float(result.aupimos[index])
            rows.append([title if rank == 0 else "", paths[index], str(num_pixels), f"{score:.3f}"])
    return text_table(rows, "<<>>")


def _by_score(result: AUPIMOResult) -> list[int]:
    """Indices of the anomalous images, worst first."""
    num_anomalous = int((~result.aupimos.isnan()).sum())
    return result.aupimos.argsort(stable=True)[:num_anomalous].tolist()  # NaN, of normal images, comes last


def _write_maps(category: Path, maps: Tensor, keys: Sequence[str]) -> None:
    """Write maps (N, 1, H, W), laid out like their images."""
    import tifffile  # noqa: PLC0415

    for key, anomaly_map in zip(keys, maps, strict=True):
        (category / key).parent.mkdir(parents=True, exist_ok=True)
        tifffile.imwrite(category / f"{key}.tiff", anomaly_map[0].numpy())


def _save_picture(path: Path, maps: Tensor, tiles: TextureTiles, result: AUPIMOResult, texture: Texture) -> None:
    """Draw PIMO curves beside the best, the median and the worst image, of maps (N, 1, H, W)."""
    by_score = _by_score(result)
    chosen = {"best": by_score[-1], "median": by_score[len(by_score) // 2], "worst": by_score[0]}
    images = list(chosen.values())
    figure = figure_without_pyplot(DEMO_SIZE)
    left, right = figure.subfigures(1, 2, width_ratios=[1, 1], squeeze=False)[0]
    plot_pimo_curves(pimo(maps, tiles.masks), result, images, left.subplots())
    plot_heatmaps(tiles.images[images], maps[images], result, tiles.masks[images], images, list(chosen), right)
    right.suptitle("The mean of the pixel AUPIMO within the outline is the score", fontsize="medium")
    figure.suptitle(f"Defects planted in photographs of {texture}: AUPIMO {result.mean:.2f}")
    figure.savefig(path, dpi=100)
