"""The engine: pure functions of tensors, without state.

In the order of the work: `checks` and `image_ids` reject invalid batches, `images` brings maps and masks into one form,
`search` finds scores at or above a level, `selection` picks those of a batch that can matter, `kept` joins and prunes
them, and `sweep` ranks them and scores the images; `sampled` does so by the paper's protocol. For the pixel metrics
beside AUPIMO, `pixels` parts all pixels of a batch into those in masks and those outside, `histogram` counts their
scores if they are not to be kept, `ranking` ranks them, and `regions` finds the connected regions of masks.
"""

__all__: list[str] = []
