"""Read and write files. Those that come from elsewhere are read by well-known libraries, and may be made to mislead.

What is promised: no code in a file is run, no file outside of the given folder is opened, and the size that a file
declares is checked before its pixels are read. What cannot be read is a `BadDataError` with the reason.

What is not promised: a hostile file may still cost time and memory, as much as the libraries take to unpack it. Read
files that nobody vouches for where both are limited.
"""

from __future__ import annotations

from aupimo_torchmetrics._files.arrays import load_tensors, open_npy, open_npz, read_npy
from aupimo_torchmetrics._files.folders import check_inside, find_files
from aupimo_torchmetrics._files.images import PHOTOMETRIC_TAG, WHITE_IS_ZERO, open_image, orientation_of, read_tiff
from aupimo_torchmetrics._files.limits import check_size, refusing

__all__ = [
    "PHOTOMETRIC_TAG",
    "WHITE_IS_ZERO",
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
