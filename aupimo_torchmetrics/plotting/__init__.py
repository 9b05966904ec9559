"""Pictures of results."""

from aupimo_torchmetrics.plotting.images import *  # noqa: F403
