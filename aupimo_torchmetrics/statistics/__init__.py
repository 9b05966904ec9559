"""Statistics of per-image scores."""

from aupimo_torchmetrics.statistics.paired import *  # noqa: F403
