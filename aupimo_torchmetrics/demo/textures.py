"""Real photographs of textures, cut into tiles to train on and tiles to validate on, with planted defects.

Conventions: images are float32 in [0, 1], `(N, 1, H, W)`, in steps of 1/255 as in the 8-bit photographs; masks are bool
of the same shape, true exactly where a planted defect has changed the photograph. Nothing is downloaded: scikit-image
holds the photographs.
"""

import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias, get_args

import torch
from torch import Tensor

from aupimo_torchmetrics._extras import require
from aupimo_torchmetrics._settings import Texture, check_choice

__all__ = [
    "DEFECTS",
    "TEXTURES",
    "Defect",
    "TextureTiles",
    "cut_tiles",
    "load_texture",
    "plant_defect",
    "save_tiles",
    "texture_tiles",
    "tile_keys",
]

TEXTURES: tuple[Texture, ...] = get_args(Texture)
"""Photographs of 512 x 512 pixels that every installation of scikit-image holds."""
Defect: TypeAlias = Literal["scratch", "blob", "patch"]
"""Kinds of defects that can be planted."""
NORMAL = "normal"
"""What a tile without a defect has instead of the name of one."""
MIN_TILE_SIZE = 16
"""A smaller tile has no room for a defect beside normal texture."""
MAX_LEVEL = 255
"""White in an 8-bit photograph."""


class TextureTiles(NamedTuple):
    """Tiles of one photograph: normal ones to train on, and others, some with a defect, to validate on.

    Example:
        >>> import torch
        >>> from aupimo_torchmetrics.demo.textures import texture_tiles
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
    image_ids: Tensor
    """(N,) int64, the indices 0 to N - 1 of the validation tiles, counted along the rows of the photograph."""
    defects: tuple[str, ...]
    """N names: the defect of each validation tile, or `"normal"`."""
    intact_images: Tensor
    """(A, 1, H, W) float32 in [0, 1], the tiles with a defect before it was planted: more normal images, which are
    neither trained on nor validated on, to choose a threshold from."""


def load_texture(texture: Texture) -> Tensor:
    """Read one of the photographs.

    Args:
        texture: One of `TEXTURES`.

    Returns:
        (512, 512) float32 in [0, 1].

    Raises:
        ValueError: If there is no such photograph.
        ModuleNotFoundError: If scikit-image is not installed.

    Example:
        >>> from aupimo_torchmetrics.demo.textures import load_texture
        >>> load_texture("brick").shape
        torch.Size([512, 512])

    """
    check_choice("texture", texture, Texture)
    require("skimage", extra="demo", needed_by="load_texture")
    from skimage import data  # noqa: PLC0415

    return torch.tensor(getattr(data, texture)(), dtype=torch.float32) / MAX_LEVEL


def cut_tiles(photograph: Tensor, size: int, stride: int | None = None) -> Tensor:
    """Cut a photograph into square tiles, row by row.

    Pixels at the right and at the bottom that are too few for a tile are dropped.

    Args:
        photograph: (H, W) tensor.
        size: Height and width of a tile in pixels.
        stride: Distance from one tile to the next in pixels. None for the size: tiles side by side.

    Returns:
        (n, 1, size, size) tensor of the dtype of the photograph.

    Example:
        >>> import torch
        >>> from aupimo_torchmetrics.demo.textures import cut_tiles
        >>> cut_tiles(torch.zeros(96, 70), 32).shape
        torch.Size([6, 1, 32, 32])

    """
    stride = size if stride is None else stride
    return photograph.unfold(0, size, stride).unfold(1, size, stride).reshape(-1, 1, size, size).contiguous()


def texture_tiles(
    texture: Texture,
    seed: int = 0,
    *,
    tile_size: int = 64,
    train_stride: int = 16,
    train_share: float = 0.375,
    anomalous_share: float = 0.5,
    defects: Sequence[Defect] = ("scratch", "blob", "patch"),
) -> TextureTiles:
    """Cut a photograph into tiles to train on and tiles to validate on, and plant defects in some of the latter.

    The left part of the photograph is for training. The right part is cut into tiles that lie side by side; which of
    them get a defect, and what it looks like, is drawn at random. As many tiles get each kind of defect as get another,
    give or take one.

    Args:
        texture: One of `TEXTURES`.
        seed: Fixes which tiles get a defect and what it looks like.
        tile_size: Height and width of a tile in pixels, from 16 to what both parts of the photograph can hold.
        train_stride: Distance from one training tile to the next in pixels.
        train_share: Share of the photograph's width that is for training, rounded to whole tiles; at least one tile is
            left for either part.
        anomalous_share: Share of the validation tiles with a defect, in (0, 1); at least one tile is left for either
            class.
        defects: Kinds of defects to plant, of `DEFECTS`.

    Returns:
        Training tiles, validation tiles, masks, image ids, kinds of defects, and intact tiles. With the defaults 261
        tiles to train on, 40 tiles, 20 of them anomalous, to validate on, and 20 intact ones.

    Raises:
        ValueError: If a texture or a kind of defect is not known, or a size or share is out of its range.
        ModuleNotFoundError: If scikit-image is not installed.

    Example:
        >>> from aupimo_torchmetrics.demo.textures import texture_tiles
        >>> tiles = texture_tiles("gravel", seed=1, defects=["scratch"])
        >>> tiles.images.shape, tiles.masks.dtype
        (torch.Size([40, 1, 64, 64]), torch.bool)
        >>> tiles.defects.count("scratch"), tiles.defects.count("normal")
        (20, 20)

    """
    if not defects:
        raise ValueError("Expected `defects` to name at least one kind of defect, but got none.")
    for kind in defects:
        check_choice("defects", kind, Defect)
    photograph = load_texture(texture)
    _check_tiling(photograph, tile_size, train_stride, (train_share, anomalous_share))
    generator = torch.Generator().manual_seed(seed)

    num_columns = photograph.shape[1] // tile_size
    train_width = tile_size * min(max(round(train_share * num_columns), 1), num_columns - 1)
    images = cut_tiles(photograph[:, train_width:], tile_size)
    others = [load_texture(name) for name in TEXTURES if name != texture]

    num_anomalous = min(max(round(anomalous_share * len(images)), 1), len(images) - 1)
    kinds = [NORMAL] * len(images)
    masks, intact = torch.zeros_like(images, dtype=torch.bool), images.clone()
    for count, index in enumerate(torch.randperm(len(images), generator=generator)[:num_anomalous].tolist()):
        kinds[index] = defects[count % len(defects)]
        other = others[_random_int(0, len(others) - 1, generator)]
        images[index, 0], masks[index, 0] = plant_defect(images[index, 0], kinds[index], generator, other)
    return TextureTiles(
        train_images=cut_tiles(photograph[:, :train_width], tile_size, train_stride),
        images=images,
        masks=masks,
        image_ids=torch.arange(len(images)),
        defects=tuple(kinds),
        intact_images=intact[torch.tensor([kind != NORMAL for kind in kinds])],
    )


def tile_keys(tiles: TextureTiles) -> list[str]:
    """Name the validation tiles by their defects and indices, as `save_tiles` writes them.

    Args:
        tiles: Tiles, as `texture_tiles` returns them.

    Returns:
        N texts such as `good/000` or `scratch/001`: path of each tile relative to the folder `test`, without suffix.

    Example:
        >>> from aupimo_torchmetrics.demo.textures import texture_tiles, tile_keys
        >>> tile_keys(texture_tiles("brick"))[:2]
        ['good/000', 'scratch/001']

    """
    return [f"{'good' if defect == NORMAL else defect}/{index:03}" for index, defect in enumerate(tiles.defects)]


def save_tiles(tiles: TextureTiles, category: str | os.PathLike[str]) -> list[str]:
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
        >>> from aupimo_torchmetrics.demo.textures import save_tiles, texture_tiles
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


def plant_defect(
    image: Tensor, defect: Defect, generator: torch.Generator, other: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Plant one defect somewhere in an image, drawn at random.

    Args:
        image: (H, W) float32 in [0, 1], at least 16 x 16.
        defect: `"scratch"`, a thin, bent line, `"blob"`, a stain through which the texture shows, both brighter or
            darker than the photograph, or `"patch"`, a rectangle swapped for a piece of another image.
        generator: Source of all randomness; it is advanced.
        other: (H', W') float32 in [0, 1], at least as large as `image`, from which a patch is taken. The image itself
            if None.

    Returns:
        The image with the defect (H, W) and its mask (H, W) bool, which is never empty: true where the two images
        differ by at least half a grey level of 255, false where they are equal.

    Raises:
        ValueError: If there is no such defect, or if an image is too small.

    Example:
        >>> import torch
        >>> from aupimo_torchmetrics.demo.textures import plant_defect
        >>> image = torch.full((32, 32), 0.5)
        >>> defective, mask = plant_defect(image, "blob", torch.Generator().manual_seed(0))
        >>> torch.equal(mask, defective != image), mask.any()
        (True, tensor(True))

    """
    check_choice("defect", defect, Defect)
    other = image if other is None else other
    for name, each in (("image", image), ("other", other)):
        if each.ndim != 2 or min(each.shape) < MIN_TILE_SIZE:
            raise ValueError(
                f"Expected `{name}` to be of shape (H, W), at least {MIN_TILE_SIZE} x {MIN_TILE_SIZE}, "
                f"but got {tuple(each.shape)}."
            )
    if any(size > available for size, available in zip(image.shape, other.shape, strict=True)):
        raise ValueError(
            "Expected `other` to be at least as large as `image`, "
            f"but got {tuple(other.shape)} for {tuple(image.shape)}."
        )
    defective, mask = DEFECTS[defect](image, other, generator)
    before, after = (image * MAX_LEVEL).round(), (defective * MAX_LEVEL).round().clamp(0, MAX_LEVEL)
    # A mask is true exactly where the photograph has changed: a pixel that already has the grey of the defect becomes
    # one level brighter, or darker if it is white.
    shifted = torch.where(before < MAX_LEVEL, before + 1, before - 1)
    after = torch.where(after == before, shifted, after)
    return torch.where(mask, after / MAX_LEVEL, image), mask


def _scratch(image: Tensor, _: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """A bent line between two random points: image (H, W) and mask (H, W)."""
    height, width = image.shape
    start = torch.tensor([_random(0.2, 0.8, generator) * height, _random(0.2, 0.8, generator) * width])
    angle, length = _random(0, 2 * math.pi, generator), _random(0.35, 0.75, generator) * min(height, width)
    along = torch.tensor([math.sin(angle), math.cos(angle)]) * length
    across = torch.tensor([along[1], -along[0]]) * _random(-0.3, 0.3, generator)
    steps = torch.linspace(0, 1, 4 * int(length))[:, None]
    line = start + steps * along + 4 * steps * (1 - steps) * across
    distance = torch.cdist(_pixel_coordinates(image), line).amin(1).view(height, width)
    # At least one pixel lies within 0.71 of the start, which is in the image.
    mask = distance <= _random(0.75, 1.5, generator)
    return _stain(image, _random(0.5, 0.9, generator), generator), mask


def _blob(image: Tensor, _: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """A round stain with a wavy outline: image (H, W) and mask (H, W)."""
    size = min(image.shape)
    centre = torch.tensor([_random(0.2, 0.8, generator) * length for length in image.shape])
    radius = _random(0.06, 0.16, generator) * size
    offset = _pixel_coordinates(image) - centre
    angle = torch.atan2(offset[:, 0], offset[:, 1])
    outline = torch.ones_like(angle)
    for wave in (2, 3, 5):
        outline += 0.15 * torch.sin(wave * angle + _random(0, 2 * math.pi, generator))
    mask = (offset.norm(dim=1) <= radius * outline + 1).view(image.shape)
    return _stain(image, _random(0.5, 0.85, generator), generator), mask


def _patch(image: Tensor, other: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """A rectangle swapped for a piece of another image, half as far off in brightness: image (H, W) and mask (H, W)."""
    sizes = [int(_random(0.16, 0.32, generator) * length) for length in image.shape]
    rows, columns = (_random_slice(*pair, generator) for pair in zip(image.shape, sizes, strict=True))
    other_rows, other_columns = (_random_slice(*pair, generator) for pair in zip(other.shape, sizes, strict=True))
    piece = other[other_rows, other_columns]
    mask = torch.zeros_like(image, dtype=torch.bool)
    mask[rows, columns] = True
    defective = image.clone()
    defective[rows, columns] = piece + (image[rows, columns].mean() - piece.mean()) / 2
    return defective, mask


DEFECTS: dict[Defect, Callable[[Tensor, Tensor, torch.Generator], tuple[Tensor, Tensor]]] = {
    "scratch": _scratch,
    "blob": _blob,
    "patch": _patch,
}
"""Kinds of defects by name."""


def _stain(image: Tensor, opacity: float, generator: torch.Generator) -> Tensor:
    """The image (H, W) under a layer of dark or bright colour."""
    tone = (0.05, 0.95)[_random_int(0, 1, generator)]
    return image + opacity * (tone - image)


def _pixel_coordinates(image: Tensor) -> Tensor:
    """(H * W, 2) rows and columns of the pixels of an image (H, W)."""
    return torch.cartesian_prod(*(torch.arange(length, dtype=torch.float32) for length in image.shape))


def _random_slice(length: int, size: int, generator: torch.Generator) -> slice:
    """A random range of `size` indices from 0 to `length` - 1."""
    start = _random_int(0, length - size, generator)
    return slice(start, start + size)


def _random_int(low: int, high: int, generator: torch.Generator) -> int:
    """A random integer from `low` to `high`, both included."""
    return int(torch.randint(low, high + 1, (), generator=generator))


def _random(low: float, high: float, generator: torch.Generator) -> float:
    """A random number between `low` and `high`."""
    return low + (high - low) * float(torch.rand((), generator=generator))


def _check_tiling(photograph: Tensor, tile_size: int, train_stride: int, shares: tuple[float, float]) -> None:
    """Raise unless both parts of the photograph (H, W) hold a tile and both classes can be there."""
    largest = min(photograph.shape) // 2
    if not MIN_TILE_SIZE <= tile_size <= largest:
        raise ValueError(f"Expected `tile_size` to be from {MIN_TILE_SIZE} to {largest}, but got {tile_size}.")
    if train_stride < 1:
        raise ValueError(f"Expected `train_stride` to be at least 1, but got {train_stride}.")
    for name, share in zip(("train_share", "anomalous_share"), shares, strict=True):
        if not 0 < share < 1:
            raise ValueError(f"Expected `{name}` to be between 0 and 1, but got {share}.")
