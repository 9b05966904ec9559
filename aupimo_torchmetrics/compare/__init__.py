"""Which model is better, and how sure one may be, of result files: what `aupimo compare` does.

`compare_paths` finds and loads the results and compares them, in `finding` and `comparing`. The `Comparison` that it
returns is written as text, tables and pictures by `report`, with `latex` and `page`; `alike` finds what else than the
models makes scores differ, and `_progress` shows a bar.

Conventions: a result file is an `aupimos.json`, as `aupimo_torchmetrics.AUPIMOResult.save` or the official package
writes it. Errors have one line. If the files are the reason, the error is a BadDataError; if the call is, it is another
ValueError.

This package needs the extra `stats`, and to write pictures the extra `plot`.
"""

from aupimo_torchmetrics._errors import BadDataError
from aupimo_torchmetrics.compare.comparing import compare_paths
from aupimo_torchmetrics.compare.comparison import Comparison

__all__ = ["BadDataError", "Comparison", "compare_paths"]
