"""The demo: tiles of real photographs, the defects planted in them, and a detector that learns to find them."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import skimage.data
import tifffile
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from aupimo_torchmetrics import AUPIMOResult, demo
from aupimo_torchmetrics.demo import DemoReport, run_demo, save_tiles, texture_tiles
from aupimo_torchmetrics.evaluate.masks import MaskRule, read_mask
from aupimo_torchmetrics.evaluate.photographs import read_image


@pytest.mark.parametrize("texture", demo.TEXTURES)
def test_tiles_are_of_a_real_photograph(texture: str) -> None:
    """Training tiles come from the left of the photograph, validation tiles from the right, and none overlap.

    Images are in [0, 1], in steps of a grey level, and not flat.
    """
    tiles, photograph = texture_tiles(texture), torch.tensor(getattr(skimage.data, texture)())
    cut = (photograph / 255).unfold(0, 64, 16).unfold(1, 64, 16).reshape(29, 29, 1, 64, 64)
    assert torch.equal(tiles.train_images, cut[:, :9].flatten(0, 1))
    clean = cut[::4, 12::4].flatten(0, 1)
    assert torch.equal(torch.where(tiles.masks, clean, tiles.images), clean)
    assert torch.equal(tiles.intact_images, clean[tiles.masks.flatten(1).any(1)])
    for images in (tiles.train_images, tiles.images):
        assert images.dtype == torch.float32
        assert 0 <= images.min() < images.max() <= 1
        assert torch.equal((images * 255).round() / 255, images)


@pytest.mark.parametrize("tile_size", [16, 48, 64, 100, 128])
@pytest.mark.parametrize("texture", demo.TEXTURES)
def test_a_mask_is_where_the_photograph_changed(texture: str, tile_size: int) -> None:
    """The mask of a tile with a defect is never empty, and true exactly where the tile differs from the photograph."""
    tiles = texture_tiles(texture, tile_size % 5, tile_size=tile_size)
    is_anomalous = tiles.masks.flatten(1).any(1)
    assert is_anomalous.tolist() == [defect != "normal" for defect in tiles.defects]
    images, masks = tiles.images[is_anomalous], tiles.masks[is_anomalous]
    assert torch.equal(masks, images != tiles.intact_images)
    assert ((images - tiles.intact_images).abs()[masks] > 0.5 / 255).all()
    assert 0 <= images.min() <= images.max() <= 1


def test_tiles_say_what_they_are() -> None:
    """Half of the 40 tiles are anomalous, their masks and names agree, and the kinds of defects are about as many."""
    tiles = texture_tiles("grass")
    assert tiles.train_images.shape == (261, 1, 64, 64)
    assert tiles.images.shape == tiles.masks.shape == (40, 1, 64, 64)
    assert tiles.masks.dtype == torch.bool
    assert [tiles.defects.count(kind) for kind in ("normal", *demo.DEFECTS)] == [20, 7, 7, 6]


def test_tiles_are_fixed_by_the_seed() -> None:
    """One seed gives one set of tiles, another seed another, and torch's own generator is not touched."""
    before = torch.random.get_rng_state()
    first, again, other = texture_tiles("brick", 5), texture_tiles("brick", 5), texture_tiles("brick", 6)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(first.images, again.images)
    assert torch.equal(first.masks, again.masks)
    assert first.defects == again.defects
    assert not torch.equal(first.masks, other.masks)


def test_sizes_and_shares_can_be_chosen() -> None:
    """Another tile size and share, of which one tile of either class is left at least."""
    for share, num_anomalous in ((0.25, 2), (1e-6, 1), (1 - 1e-6, 7)):
        tiles = texture_tiles("gravel", tile_size=128, anomalous_share=share)
        assert tiles.train_images.shape == (225, 1, 128, 128)
        assert tiles.images.shape == (8, 1, 128, 128)
        assert tiles.defects.count("normal") == 8 - num_anomalous
    largest = texture_tiles("gravel", tile_size=256)
    assert (len(largest.train_images), len(largest.images)) == (17, 2)


WRONG: dict[str, Any] = {
    "`texture` to be 'brick' or 'grass' or 'gravel', but got 'sand'": lambda: texture_tiles("sand"),
    "`tile_size` to be from 16 to 256, but got 15": lambda: texture_tiles("brick", tile_size=15),
    "`tile_size` to be from 16 to 256, but got 257": lambda: texture_tiles("brick", tile_size=257),
    "`anomalous_share` to be between 0 and 1, but got 1.0": lambda: texture_tiles("brick", anomalous_share=1.0),
}


@pytest.mark.parametrize("reason", WRONG)
def test_what_cannot_be_planted_is_named(reason: str) -> None:
    """A setting out of its range is a ValueError that names it."""
    with pytest.raises(ValueError, match=reason):
        WRONG[reason]()


def test_saved_tiles_are_read_as_they_were(tmp_path: Path) -> None:
    """Tiles are written to a folder given as a text, under their names: images and masks are those of the tiles."""
    tiles = texture_tiles("grass", tile_size=128)
    keys = save_tiles(tiles, str(tmp_path / "grass"))
    assert keys == [f"test/{key}" for key in demo.tile_keys(tiles)]
    for index, key in enumerate(keys):
        assert torch.equal(read_image(tmp_path / "grass" / f"{key}.png"), tiles.images[index])
        mask = tmp_path / "grass" / f"{key.replace('test', 'ground_truth')}_mask.png"
        assert mask.exists() == (tiles.defects[index] != "normal") == bool(tiles.masks[index].any())
        assert not mask.exists() or torch.equal(read_mask([mask], MaskRule())[0], tiles.masks[index, 0])


@pytest.mark.parametrize(("module", "package"), [("skimage", "scikit-image"), ("PIL", "pillow")])
def test_missing_packages_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str, package: str) -> None:
    """Without a package of the demo the error names it and says how to install it."""
    tiles = texture_tiles("brick", tile_size=128)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ModuleNotFoundError, match=rf'`{package}` .*pip install "aupimo-torchmetrics\[demo\]"'):
        texture_tiles("brick") if module == "skimage" else save_tiles(tiles, tmp_path)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> DemoReport:
    """A demo of one epoch."""
    return run_demo("brick", epochs=1, out=tmp_path_factory.mktemp("demo"), seed=3)


def _logged(folder: Path, name: str) -> list[tuple[int, float]]:
    """Steps and values of a scalar in the event files of a run."""
    return [(event.step, event.value) for event in EventAccumulator(str(folder)).Reload().Scalars(name)]


def test_demo_logs_what_it_saves(report: DemoReport) -> None:
    """The event file holds AUPIMO before and after the epoch, equal to the results and to `aupimos.json`.

    The summary holds both means, chance, the result, where the files are, and the next command.
    """
    saved, defects = AUPIMOResult.load(report.out / "aupimos.json"), texture_tiles("brick", seed=3).defects
    assert torch.equal(saved.aupimos.nan_to_num(-1), report.after.aupimos.nan_to_num(-1))
    assert saved.threshold_bounds == report.after.threshold_bounds
    assert saved.paths == [
        f"test/{kind.replace('normal', 'good')}/{index:03}.png" for index, kind in enumerate(defects)
    ]
    (before_step, before), (after_step, after) = _logged(report.out / "tensorboard" / "version_0", "val/aupimo")
    assert 0 == before_step < after_step
    # Event files hold float32, as `compute` returns it.
    assert before == pytest.approx(report.before.mean, abs=1e-7)
    assert after == pytest.approx(saved.mean, abs=1e-7)
    assert _logged(report.out / "tensorboard" / "version_0", "train/loss")
    files = ["aupimo.png", "aupimos.json", "aupimos.safetensors", "data", "maps", "normal_maps", "tensorboard"]
    assert sorted(path.name for path in report.out.iterdir()) == files
    assert report.after.aupimos.isnan().tolist() == [defect == "normal" for defect in defects]
    summary = report.summary()
    assert f"{report.before.mean:.3f} before training, {report.after.mean:.3f} after (chance 0.0039" in summary
    assert str(report.after) in summary
    assert all(str(report.out / name) in summary for name in ("aupimo.png", "aupimos.json"))
    assert f"tensorboard --logdir {report.out}" in summary


def test_training_shows_its_progress_in_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bar of epochs is there before the first is done, and shows the score of each."""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    tiles = texture_tiles("brick")
    detector = demo.train_detector(tiles._replace(train_images=tiles.train_images[:32]), epochs=2)
    shown = capsys.readouterr().err.split("\r")
    assert "0/2" in shown[1]
    assert "AUPIMO" not in shown[1]
    scores = [f"{result.mean:.4f}" for result in detector.results]
    for epoch, score in enumerate(scores):
        assert any(f"{epoch}/2" in text and f"AUPIMO {score}" in text for text in shown)


@pytest.mark.slow
def test_demo_is_fixed_by_the_seed(report: DemoReport, tmp_path: Path) -> None:
    """One seed gives one result, bit for bit, with any number of threads, another seed another.

    Torch's own generator and number of threads are as before.
    """
    torch.manual_seed(99)
    before, num_threads = torch.random.get_rng_state(), torch.get_num_threads()
    results = []
    try:
        for other_threads in (1, 2, 3):
            torch.set_num_threads(other_threads)
            results.append(run_demo("brick", epochs=1, out=tmp_path, seed=3).after.aupimos.nan_to_num(-1))
            assert torch.get_num_threads() == other_threads
    finally:
        torch.set_num_threads(num_threads)
    other = run_demo("brick", epochs=1, out=tmp_path, seed=4)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(result, report.after.aupimos.nan_to_num(-1)) for result in results)
    assert not torch.equal(other.after.aupimos.nan_to_num(-1), report.after.aupimos.nan_to_num(-1))
    assert (tmp_path / "tensorboard" / "version_1").is_dir()


def test_training_overwrites_what_it_says() -> None:
    """Outside of the regions to find, a training image is the photograph."""
    images = texture_tiles("gravel").train_images[:8]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for _ in range(10):
            overwritten, is_overwritten = demo.overwrite_regions(images)
            assert is_overwritten.any()
            assert torch.equal(overwritten[~is_overwritten], images[~is_overwritten])
            assert 0 <= overwritten.min() <= overwritten.max() <= 1


def test_saved_maps_score_what_the_demo_says(report: DemoReport, tmp_path: Path, aupimo: Any) -> None:
    """`aupimo evaluate` on the images and maps that the demo writes gives its scores; others give a threshold."""
    lower, upper = report.after.fpr_bounds
    options = f"--data {report.out / 'data'} --fpr-bounds {lower} {upper} --out {tmp_path / 'scores'}"
    assert aupimo(f"evaluate {report.out / 'maps'} {options}")[0] == 0
    result = AUPIMOResult.load(tmp_path / "scores" / "brick" / "aupimo" / "aupimos.json")
    indices = [int(Path(path).stem) for path in result.paths or []]
    assert sorted(indices) == list(range(40))
    torch.testing.assert_close(result.aupimos, report.after.aupimos[indices], rtol=0, atol=1e-12, equal_nan=True)
    assert result.paths == [f"brick/{report.after.paths[index]}" for index in indices]
    assert all((report.out / "data" / "brick" / path).is_file() for path in report.after.paths)
    assert aupimo(f"threshold {report.out / 'normal_maps'} --fpr 1e-3")[0] == 0


NOT_DONE = [
    ("--epochs 0", "Expected `--epochs` to be at least 1, but got 0"),
    ("--seed -1", "Expected `--seed` to be from 0 to 9223372036854775807, but got -1"),
    ("--epochs 1 --out file/below", ""),
]


@pytest.mark.parametrize(("options", "message"), NOT_DONE)
def test_what_the_demo_cannot_do_is_said_first(
    tmp_path: Path, options: str, message: str, monkeypatch: pytest.MonkeyPatch, aupimo: Any
) -> None:
    """A number out of range, and a folder that cannot be, are one line before anything is written."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    code, _, err = aupimo(f"demo {options}")
    assert (code, err.count("\n")) == (2 if message else 1, 1)
    assert err.startswith(f"aupimo demo: {message}")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.slow
def test_the_demo_from_the_shell(tmp_path: Path) -> None:
    """The options are those of the run, and redirected output holds its summary and no progress lines."""
    options = ["demo", "--texture", "grass", "--epochs", "1", "--seed", "7", "--out", str(tmp_path)]
    command = [sys.executable, "-m", "aupimo_torchmetrics", *options]
    done = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603
    assert "AUPIMO on grass: " in done.stdout
    assert sorted(path.stem for path in tmp_path.glob("data/grass/test/good/*")) == [
        f"{index:03}" for index, defect in enumerate(texture_tiles("grass", 7).defects) if defect == "normal"
    ]
    assert len(_logged(tmp_path / "tensorboard" / "version_0", "val/aupimo")) == 2
    assert not re.search(r"it/s|\r", done.stdout + done.stderr)


@pytest.mark.slow
def test_an_interrupted_demo_says_what_was_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, aupimo: Any) -> None:
    """Ctrl-C while the demo writes is one line that says where finished files are, and exit code 1."""
    monkeypatch.setattr(tifffile, "imwrite", Mock(side_effect=KeyboardInterrupt))
    code, _, err = aupimo(f"demo --epochs 1 --out {tmp_path}")
    assert code == 1
    assert (tmp_path / "aupimos.json").is_file()
    assert err.splitlines()[-1] == f"aupimo demo: stopped; what was finished is in {tmp_path}"
