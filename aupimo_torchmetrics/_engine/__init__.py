"""The engine: pure functions of tensors, without state.

In the order of the work: `inputs` and `image_ids` reject invalid batches and bring maps, masks and ids into one form,
`select` picks the scores of a batch that can matter, `kept` prunes what was kept, and `sweep` ranks it and scores the
images; `sampled` does so by the paper's protocol. For the pixel metrics beside AUPIMO, `pixels` parts all pixels of a
batch into those in masks and those outside, `histogram` gives them bins if they are not to be kept, `ranking` ranks
them, and `regions` finds the connected regions of masks.
"""

__all__: list[str] = []
