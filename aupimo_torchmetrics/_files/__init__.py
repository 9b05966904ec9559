"""Read files that other people wrote: no code in them is run, the memory is not filled, no other file is opened.

What the libraries behind promise is not checked again: from torch 2.6 on `torch.load` with `weights_only=True` runs no
code, and Pillow and NumPy check what they read against the size that a file states. What they do not promise is checked
here. A file that is refused is a `BadDataError` that says why.
"""

from __future__ import annotations

from aupimo_torchmetrics._files.arrays import ArchivedArray, open_npy, open_npz, read_npy
from aupimo_torchmetrics._files.folders import check_inside, find_files
from aupimo_torchmetrics._files.images import open_image, orientation_of
from aupimo_torchmetrics._files.limits import check_size, refusing
from aupimo_torchmetrics._files.tensors import MAX_TEXT, load_tensors
from aupimo_torchmetrics._files.tiff import PHOTOMETRIC_TAG, WHITE_IS_ZERO, read_tiff

__all__ = [
    "MAX_TEXT",
    "PHOTOMETRIC_TAG",
    "WHITE_IS_ZERO",
    "ArchivedArray",
    "check_inside",
    "check_size",
    "find_files",
    "load_tensors",
    "open_image",
    "open_npy",
    "open_npz",
    "orientation_of",
    "read_npy",
    "read_tiff",
    "refusing",
]
