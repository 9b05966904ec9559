"""Pictures of results: distributions of scores, PIMO curves, heat maps of where a score comes from, models compared.

Conventions: a function takes results and, if the picture belongs into a larger one, the axis (or figure) to draw on; it
returns figure and axis, and shows and closes nothing. Colours are of the viridis map, which colour-blind readers can
tell apart. The pictures need the extra `plot`; importing the functions does not load matplotlib.
"""

from aupimo_torchmetrics.plotting.images import (
    plot_distribution,
    plot_heatmap,
    plot_heatmaps,
    plot_pimo_curves,
    representative_images,
)
from aupimo_torchmetrics.plotting.models import plot_confidence, plot_ranks

__all__ = [
    "plot_confidence",
    "plot_distribution",
    "plot_heatmap",
    "plot_heatmaps",
    "plot_pimo_curves",
    "plot_ranks",
    "representative_images",
]
