"""Files that are written for each image: where they lie, and that they take the place of nothing that is read."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import tifffile
from PIL import Image
from torch import Tensor

from aupimo_torchmetrics._errors import BadDataError, SettingError
from aupimo_torchmetrics._files.writing import replacing
from aupimo_torchmetrics._paths import as_key

__all__ = ["check_apart", "files_of", "saying_what_was_written", "write_half", "write_mask"]


def check_apart(name: str, folder: str | os.PathLike[str], read: Iterable[str | os.PathLike[str] | None]) -> Path:
    """Return the parameter `name`, a folder to write to; raise if it lies in a folder that is read, or is one."""
    for each in read:
        if each is not None and Path(each).is_dir() and Path(folder).resolve().is_relative_to(Path(each).resolve()):
            raise SettingError(f"Expected `{name}` to be a folder apart from {each}, which is read, but got {folder}.")
    return Path(folder)


def files_of(names: Sequence[str], folder: Path, suffix: str, read: Iterable[Path | None] = ()) -> list[Path]:
    """Files to write, under the paths of images or maps, none of which leads out of the folder.

    Raises:
        BadDataError: If two would be one file, or one is a file that is read.

    """
    files, first_of, known = [], dict[Path, str](), {path.resolve() for path in read if path is not None}
    for name in names:
        key = PurePosixPath(as_key(name.replace("\\", "/")))
        parts = [part for part in key.parts if part.strip("/") not in {"", ".."}]
        file = folder.joinpath(*(part.replace(":", "_") for part in parts[:-1]), f"{parts[-1]}{suffix}")
        if file in first_of:
            raise BadDataError(
                f"Expected a file for each image, but {first_of[file]} and {name} would share {file}. Give the images "
                "other names, by the column name of a table."
            )
        if file.resolve() in known:
            raise BadDataError(f"Expected another folder: {file} is read, and would be replaced.")
        first_of[file] = name
        files.append(file)
    return files


@contextmanager
def saying_what_was_written(folder: str | os.PathLike[str]) -> Iterator[list[Any]]:
    """Give a list of the files that are written; on Ctrl-C say how many there are."""
    written: list[Any] = []
    try:
        yield written
    except KeyboardInterrupt as error:
        raise KeyboardInterrupt(f"stopped; {len(written)} files were written to {folder}, each complete") from error


def write_mask(file: Path, is_found: Tensor) -> None:
    """Write a binary mask (H, W) as PNG, whole or not at all."""
    with replacing(file) as unfinished:
        Image.fromarray(is_found.numpy().astype(np.uint8) * 255).save(unfinished, "png")


def write_half(file: Path, anomaly_map: Tensor) -> None:
    """Write a map (H, W) as TIFF of float16, whole or not at all."""
    with replacing(file) as unfinished:
        tifffile.imwrite(unfinished, anomaly_map.half().numpy())
