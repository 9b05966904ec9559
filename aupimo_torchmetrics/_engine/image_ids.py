"""Image ids: integers, or texts such as file paths, which are kept as bytes that processes gather like numbers.

Conventions: N images; a text is never empty, so a length of 0 stands for an image without one. Lengths are of bytes.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor

from aupimo_torchmetrics._engine.kept import NO_ID

ImageIds: TypeAlias = Tensor | Sequence[int] | Sequence[str] | Sequence[os.PathLike[str]]
"""One id for each image of a batch: integers of at least 0, or texts or paths."""

_ERRORS = "surrogatepass"
"""How texts are turned into UTF-8: names of files that are no UTF-8 hold surrogates in Python."""


def are_texts(image_ids: Any) -> bool:
    """Whether ids are texts or paths, by the first of them."""
    if isinstance(image_ids, Tensor) or not isinstance(image_ids, Iterable):
        return False
    return isinstance(next(iter(image_ids), None), str | os.PathLike)


def check_ids(image_ids: ImageIds, num_images: int) -> None:
    """Raise unless there is one id for each image, all integers of at least 0 or all texts that are not empty."""
    if isinstance(image_ids, str | os.PathLike):
        raise TypeError(
            f"Expected `image_ids` to be a list with one id for each image, but got the single text {image_ids!r}."
        )
    if are_texts(image_ids):
        _check_texts(image_ids, num_images)
    else:
        _check_integers(image_ids, num_images)


def _check_texts(image_ids: Any, num_images: int) -> None:
    """Raise unless there is one text for each image, and none is empty."""
    for each in image_ids:
        if not isinstance(each, str | os.PathLike):
            raise TypeError(
                f"Expected `image_ids` to be all integers or all texts, but got texts and a {type(each).__name__}."
            )
        if not os.fspath(each):
            raise ValueError("Expected `image_ids` to be texts that are not empty, but got an empty one.")
    if len(image_ids) != num_images:
        raise ValueError(
            f"Expected `image_ids` to hold one id for each of {num_images} images, but got {len(image_ids)}."
        )


def _check_integers(image_ids: Any, num_images: int) -> None:
    """Raise unless there is one integer of at least 0 for each image."""
    try:
        ids = torch.as_tensor(image_ids)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"Expected `image_ids` to be integers, but could not read them: {error}.") from error
    if ids.numel() and (ids.dtype == torch.bool or ids.is_floating_point() or ids.is_complex()):
        raise TypeError(
            f"Expected `image_ids` to be integers, but got {ids.dtype}. Texts such as file paths are ids, too."
        )
    if ids.shape != (num_images,):
        raise ValueError(
            f"Expected `image_ids` to hold one id for each of {num_images} images, but got shape {tuple(ids.shape)}."
        )
    if ids.numel() and int(ids.to(torch.int64).min()) < 0:
        raise ValueError("Expected `image_ids` to be 0 or larger, but got a negative id.")


def encode(image_ids: Any) -> tuple[Tensor, Tensor]:
    """Lengths (N,) int64 and bytes (B,) uint8 of N texts or paths, on the CPU."""
    encoded = [str(os.fspath(each)).encode(errors=_ERRORS) for each in image_ids]
    lengths = torch.tensor([len(each) for each in encoded], dtype=torch.int64)
    return lengths, torch.tensor(bytearray(b"".join(encoded)), dtype=torch.uint8)


def no_texts(num_kept: Tensor) -> tuple[Tensor, Tensor]:
    """Lengths (N,) and bytes (0,) of as many images without a text as there are counts (N,)."""
    return torch.zeros_like(num_kept), num_kept.new_empty(0, dtype=torch.uint8)


def decode(lengths: Tensor, joined: Tensor) -> list[str]:
    """N texts of lengths (N,) in bytes (B,)."""
    ends = lengths.cumsum(0).tolist()
    starts = [0, *ends[:-1]]
    data = joined.cpu().numpy().tobytes()
    return [data[start:end].decode(errors=_ERRORS) for start, end in zip(starts, ends, strict=True)]


def rank(texts: Sequence[str]) -> tuple[Tensor, list[str]]:
    """Number texts in their order: ranks (N,) int64, `NO_ID` for an empty text, and the distinct texts by rank."""
    distinct = sorted(set(texts) - {""})
    ranks = {text: index for index, text in enumerate(distinct)} | {"": NO_ID}
    return torch.tensor([ranks[text] for text in texts], dtype=torch.int64), distinct
