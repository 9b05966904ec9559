"""The engine: pure functions of tensors, without state.

In the order of the work: `checks` and `image_ids` refuse what is no batch, `selection` picks the scores of a batch that
can matter, `kept` joins and prunes what was picked, `sweep` ranks it and scores the images; `regions` splits masks for
AUPRO.
"""

__all__: list[str] = []
