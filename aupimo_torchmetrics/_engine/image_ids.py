"""Image ids: integers, or texts such as file paths. Texts are kept as bytes, which processes can gather like numbers.

Conventions: N images, B bytes of all texts. Lengths count bytes. A text is never empty: a length of 0 means that the
image has no text.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from aupimo_torchmetrics._engine.inputs import plain
from aupimo_torchmetrics._engine.kept import NO_ID

ImageIds: TypeAlias = Tensor | Sequence[int] | Sequence[str] | Sequence[os.PathLike[str]]
"""One id for each image of a batch: integers of at least 0, or texts or paths; any other iterable of these will do."""

_ERRORS = "surrogatepass"
"""Error handler of the UTF-8 codec: file names that are not valid UTF-8 hold surrogates in Python, which may pass."""


def read_ids(image_ids: Any, num_images: int) -> list[str] | Tensor:
    """Return the ids of a batch as a list of texts, or as integers (N,) int64 in memory of their own.

    Raises:
        TypeError: If they are neither all integers nor all texts.
        ValueError: If there is not one for each image, one is negative, or one is an empty text.

    """
    if isinstance(image_ids, str | os.PathLike):
        raise TypeError(
            f"Expected `image_ids` to be a list with one id for each image, but got the single text {image_ids!r}."
        )
    if isinstance(image_ids, np.ndarray):
        image_ids = image_ids.tolist()
    elif isinstance(image_ids, Iterable) and not isinstance(image_ids, Tensor):
        image_ids = [os.fsdecode(each) if isinstance(each, os.PathLike) else each for each in image_ids]
    are_texts = isinstance(image_ids, list) and len(image_ids) > 0 and isinstance(image_ids[0], str)
    ids = image_ids if are_texts else _as_integers(image_ids)
    shape = (len(ids),) if isinstance(ids, list) else tuple(ids.shape)
    if shape != (num_images,):
        raise ValueError(f"Expected `image_ids` to hold one id for each of {num_images} images, but got shape {shape}.")
    if isinstance(ids, list):
        others = {type(each).__name__ for each in ids if not isinstance(each, str)}
        if others:
            raise TypeError(
                f"Expected `image_ids` to be all integers or all texts, but got texts and a {others.pop()}."
            )
        if "" in ids:
            raise ValueError("Expected `image_ids` to be texts that are not empty, but got an empty one.")
    elif len(ids) and int(ids.min()) < 0:
        raise ValueError("Expected `image_ids` to be 0 or larger, but got a negative id.")
    return ids


def _as_integers(image_ids: Any) -> Tensor:
    """Return ids as integers of int64 in memory of their own; raise if they are none."""
    try:
        ids = plain(image_ids if isinstance(image_ids, Tensor) else torch.as_tensor(image_ids, device="cpu"))
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"Expected `image_ids` to be integers, but could not read them: {error}.") from error
    if ids.numel() and (ids.dtype == torch.bool or ids.is_floating_point() or ids.is_complex()):
        raise TypeError(
            f"Expected `image_ids` to be integers, but got {ids.dtype}. Texts such as file paths are ids, too."
        )
    return ids.to(torch.int64, copy=True)


def encode(texts: list[str]) -> tuple[Tensor, Tensor]:
    """Encode N texts as lengths (N,) int64 and joined bytes (B,) uint8, on the CPU."""
    encoded = [text.encode(errors=_ERRORS) for text in texts]
    lengths = np.fromiter(map(len, encoded), dtype=np.int64, count=len(encoded))
    return torch.from_numpy(lengths), torch.from_numpy(np.frombuffer(bytearray(b"".join(encoded)), dtype=np.uint8))


def decode(lengths: Tensor, joined: Tensor) -> list[str]:
    """Decode N texts from their lengths (N,) and joined bytes (B,)."""
    ends = lengths.cumsum(0).tolist()
    data = joined.cpu().numpy().tobytes()
    return [data[start:end].decode(errors=_ERRORS) for start, end in zip([0, *ends[:-1]], ends, strict=True)]


def rank(texts: Sequence[str]) -> tuple[Tensor, list[str]]:
    """Ranks (N,) int64 of texts in sorted order, `NO_ID` for an empty text; and the distinct texts, in that order."""
    distinct = sorted(set(texts) - {""})
    ranks = {text: index for index, text in enumerate(distinct)} | {"": NO_ID}
    return torch.tensor([ranks[text] for text in texts], dtype=torch.int64, device="cpu"), distinct
