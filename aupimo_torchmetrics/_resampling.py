"""Metrics in a `BootStrapper` of torchmetrics know that they are: it draws images several times, which ids would undo.

Nothing in a metric tells where it is used. But torch tells its hooks what becomes a part of which module.
"""

from __future__ import annotations

from typing import Any

from torch.nn import Module
from torch.nn.modules.module import register_module_module_registration_hook
from torchmetrics.wrappers import BootStrapper


def _mark_resampled(module: Module, name: str, part: Any) -> None:  # noqa: ARG001  torch's signature
    """Mark the metrics in a part of a `BootStrapper`."""
    if isinstance(module, BootStrapper) and isinstance(part, Module):
        each: Any
        for each in part.modules():
            if hasattr(each, "_is_resampled"):
                each._is_resampled = True  # noqa: SLF001  of the same package


register_module_module_registration_hook(_mark_resampled)
