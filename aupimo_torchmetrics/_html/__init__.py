"""Pages to look at in a browser: one file each, which needs no server and no network.

`page` says what a page holds and writes it; `views` says what a model finds in one image, and `pictures` draws it. What
a page of scores or of a comparison has to say is filled in by `aupimo_torchmetrics.evaluate` and
`aupimo_torchmetrics.compare`.
"""
