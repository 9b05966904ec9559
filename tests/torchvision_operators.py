"""Let torchvision be imported where torch has no GPU: the torchvision of PyPI is built for CUDA, like that of torch.

Without its compiled operators an import fails. Nothing here uses them, so they are declared without a body.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import torch

_NAMES = ("nms", "qnms", "roi_align")
"""Operators that the Python part of torchvision asks for when it is imported."""


def _have_a_body(package: Path) -> bool:
    """Whether the compiled part of torchvision can be loaded."""
    for library in (*package.glob("_C.so"), *package.glob("_C.pyd")):
        try:
            torch.ops.load_library(library)
        except OSError:
            continue
        return True
    return False


_spec = find_spec("torchvision")
ARE_DECLARED = _spec is not None and _spec.origin is not None and not _have_a_body(Path(_spec.origin).parent)
"""Whether each process has to import this before torchvision."""
if ARE_DECLARED:
    library = torch.library.Library("torchvision", "DEF")  # the operators are there as long as this object is
    for name in _NAMES:
        library.define(f"{name}(Tensor input) -> Tensor")
