"""Pictures of results: distributions of scores, PIMO curves, heat maps of where a score comes from, models compared.

Conventions: a function takes results, and last the axis (or figure) to draw on, for a picture that is part of a larger
one. It returns figure and axis, and it neither shows nor closes the figure. Scores have the colours of the viridis map,
which colour-blind readers can tell apart. An image is named by the short end of its path that no other image has, such
as `scratch/005`, or by its index if the result has no paths. The pictures need the extra `plot`; importing the
functions does not load matplotlib.
"""

from aupimo_torchmetrics.plotting.curves import plot_pimo_curves
from aupimo_torchmetrics.plotting.distribution import plot_distribution
from aupimo_torchmetrics.plotting.heatmaps import plot_heatmap, plot_heatmaps
from aupimo_torchmetrics.plotting.models import plot_confidence, plot_ranks
from aupimo_torchmetrics.plotting.representatives import representative_images

__all__ = [
    "plot_confidence",
    "plot_distribution",
    "plot_heatmap",
    "plot_heatmaps",
    "plot_pimo_curves",
    "plot_ranks",
    "representative_images",
]
