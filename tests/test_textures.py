"""Tiles of real photographs and the defects planted in them."""

import sys
from pathlib import Path
from typing import Any

import pytest
import skimage.data
import torch

from aupimo_torchmetrics.demo import DEFECTS, TEXTURES, save_tiles, texture_tiles, tile_keys
from aupimo_torchmetrics.evaluate.masks import MaskRule, read_mask
from aupimo_torchmetrics.evaluate.photographs import read_image


@pytest.mark.parametrize("texture", TEXTURES)
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
@pytest.mark.parametrize("texture", TEXTURES)
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
        texture_tiles("brick") if module == "skimage" else save_tiles(tiles, tmp_path)
