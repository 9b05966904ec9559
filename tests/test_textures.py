"""Tiles of real photographs and the defects planted in them."""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from aupimo_torchmetrics.demo.textures import (
    DEFECTS,
    TEXTURES,
    cut_tiles,
    load_texture,
    plant_defect,
    save_tiles,
    texture_tiles,
    tile_keys,
)
from aupimo_torchmetrics.evaluate.masks import MaskRule, read_mask
from aupimo_torchmetrics.evaluate.photographs import read_image


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("texture", TEXTURES)
def test_photographs_are_real_and_in_range(texture: str) -> None:
    """A photograph is 512 x 512 pixels in [0, 1], in steps of a grey level, and not flat."""
    photograph = load_texture(texture)
    assert photograph.shape == (512, 512)
    assert photograph.dtype == torch.float32
    assert 0 <= photograph.min() < photograph.max() <= 1
    assert torch.equal((photograph * 255).round() / 255, photograph)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("defect", DEFECTS)
def test_a_mask_is_where_the_photograph_changed(defect: str, seed: int) -> None:
    """A mask is never empty, and true exactly at the pixels that differ from the photograph."""
    photograph = load_texture(TEXTURES[seed % 3])[:64, :64]
    other = load_texture(TEXTURES[(seed + 1) % 3])
    defective, mask = plant_defect(photograph, defect, _generator(seed), other)
    assert mask.any()
    assert torch.equal(mask, defective != photograph)
    assert ((defective - photograph).abs()[mask] > 0.5 / 255).all()
    assert 0 <= defective.min() <= defective.max() <= 1


@pytest.mark.parametrize("level", [0.0, 0.05, 0.5, 0.95, 1.0])
@pytest.mark.parametrize("defect", DEFECTS)
def test_a_defect_changes_pixels_that_have_its_own_colour(defect: str, level: float) -> None:
    """The mask holds on a flat image too, black, white, or of the colour of the defect, where nothing would show."""
    image = torch.full((16, 20), level)
    defective, mask = plant_defect(image, defect, _generator(3))
    assert mask.any()
    assert torch.equal(mask, defective != image)


@pytest.mark.parametrize("texture", TEXTURES)
def test_validation_tiles_lie_apart_from_training_tiles(texture: str) -> None:
    """Training tiles come from the left of the photograph, validation tiles from the right, and none overlap."""
    tiles = texture_tiles(texture)
    photograph = load_texture(texture)
    assert torch.equal(tiles.train_images, cut_tiles(photograph[:, :192], 64, 16))
    clean = cut_tiles(photograph[:, 192:], 64)
    assert torch.equal(torch.where(tiles.masks, clean, tiles.images), clean)
    train_rows = {tuple(row) for row in tiles.train_images.reshape(-1, 64).tolist()}
    assert not any(tuple(row) in train_rows for row in clean.reshape(-1, 64).tolist())


def test_tiles_say_what_they_are() -> None:
    """Half of the 40 tiles are anomalous, their masks and names agree, and the kinds of defects are about as many."""
    tiles = texture_tiles("grass")
    assert tiles.train_images.shape == (261, 1, 64, 64)
    assert tiles.images.shape == tiles.masks.shape == (40, 1, 64, 64)
    assert tiles.masks.dtype == torch.bool
    assert tiles.image_ids.tolist() == list(range(40))
    assert tiles.masks.flatten(1).any(1).tolist() == [defect != "normal" for defect in tiles.defects]
    assert [tiles.defects.count(kind) for kind in ("normal", *DEFECTS)] == [20, 7, 7, 6]


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
    """Another tile size, split, kind of defect and share, of which one tile of either class is left at least."""
    settings = {"tile_size": 128, "train_stride": 64, "train_share": 0.5, "defects": ["patch"]}
    for share, num_anomalous in ((0.25, 2), (1e-6, 1), (1 - 1e-6, 7)):
        tiles = texture_tiles("gravel", anomalous_share=share, **settings)
        assert tiles.train_images.shape == (21, 1, 128, 128)
        assert tiles.images.shape == (8, 1, 128, 128)
        assert sorted(tiles.defects) == ["normal"] * (8 - num_anomalous) + ["patch"] * num_anomalous


def plant(kind: str, *shape: int, other: torch.Tensor | None = None) -> torch.Tensor:
    """Plant a defect in a black image."""
    return plant_defect(torch.zeros(shape), kind, _generator(0), other)[0]


WRONG: dict[str, Any] = {
    "`texture` to be 'brick' or 'grass' or 'gravel', but got 'sand'": lambda: texture_tiles("sand"),
    "`tile_size` to be from 16 to 256, but got 8": lambda: texture_tiles("brick", tile_size=8),
    "`tile_size` to be from 16 to 256, but got 257": lambda: texture_tiles("brick", tile_size=257),
    "`train_stride` to be at least 1, but got 0": lambda: texture_tiles("brick", train_stride=0),
    "`train_share` to be between 0 and 1, but got 0.0": lambda: texture_tiles("brick", train_share=0.0),
    "`anomalous_share` to be between 0 and 1, but got 1.0": lambda: texture_tiles("brick", anomalous_share=1.0),
    "`defects` to name at least one": lambda: texture_tiles("brick", defects=[]),
    "`defects` to be 'scratch' or 'blob' or 'patch', but got 'hole'": lambda: texture_tiles("brick", defects=["hole"]),
    "`image` to be of shape .*1, 32, 32": lambda: plant("blob", 1, 32, 32),
    "`image` to be of shape .*32, 8": lambda: plant("blob", 32, 8),
    r"as `image`, but got \(16, 64\) for \(32, 32\)": lambda: plant("patch", 32, 32, other=torch.zeros(16, 64)),
    "`defect` to be": lambda: plant("hole", 32, 32),
}


@pytest.mark.parametrize("reason", WRONG)
def test_what_cannot_be_planted_is_named(reason: str) -> None:
    """A setting out of its range, and an image that is too small or has channels, are ValueErrors that name them."""
    with pytest.raises(ValueError, match=reason):
        WRONG[reason]()


def test_saved_tiles_are_read_as_they_were(tmp_path: Path) -> None:
    """Tiles are written to a folder given as a text, under their names: images and masks are those of the tiles."""
    tiles = texture_tiles("grass", tile_size=128)
    keys = save_tiles(tiles, str(tmp_path / "grass"))
    assert keys == [f"test/{key}" for key in tile_keys(tiles)]
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
        load_texture("brick") if module == "skimage" else save_tiles(tiles, tmp_path)
