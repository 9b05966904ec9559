"""Which model is better, and how sure one may be, of result files: what `aupimo compare` does.

`compare_paths` finds the files (`find`), loads them (`loading`, which also says what else than the models makes scores
differ, and `counts`, from which resampled images follow), and returns a `Comparison`. That is written as text, CSV and
LaTeX by `tables`, as pictures by `aupimo_torchmetrics.plotting`, and as a page for a browser by `page`.

Conventions: a result file is an `aupimos.json`, as `aupimo_torchmetrics.AUPIMOResult.save` or the official package
writes it. Errors have one line. If the files are the reason, the error is a BadDataError; if the call is, it is another
ValueError.

This package needs the extra `stats`, and to write pictures the extra `plot`.
"""

from aupimo_torchmetrics._errors import BadDataError
from aupimo_torchmetrics.compare.comparison import Comparison, compare_paths

__all__ = ["BadDataError", "Comparison", "compare_paths"]
