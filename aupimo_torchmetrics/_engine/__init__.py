"""The engine: pure functions of tensors, without state.

In the order of the work: `checks` and `image_ids` reject invalid batches, `selection` picks the scores of a batch that
can matter, `kept` joins and prunes these scores, and `sweep` ranks them and scores the images. `regions` splits scores
by the connected regions of masks, for AUPRO.
"""

__all__: list[str] = []
