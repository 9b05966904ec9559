"""A Lightning callback that shows where a logged AUPIMO comes from, in TensorBoard and other loggers.

The callback follows a validation or test epoch (`_callback`). It sees which batch updates which metric and keeps a few
images (`_epoch`, `_sources`, `_gallery`), knows under which name Lightning logs a metric and at which step (`_names`),
draws figures (`_figures`), and gives them to loggers and files (`_loggers`).

It works with both names of Lightning, `lightning` and `pytorch_lightning`. It needs the extras `lightning` and `plot`.
"""

from __future__ import annotations

from aupimo_torchmetrics.lightning._callback import AUPIMOCallback

__all__ = ["AUPIMOCallback"]
