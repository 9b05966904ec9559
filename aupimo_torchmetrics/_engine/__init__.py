"""The engine: pure functions of tensors, without state.

In the order of the work: `checks` and `image_ids` reject invalid batches, `images` brings maps and masks into one form,
`search` finds scores at or above a level, `selection` picks those of a batch that can matter, `kept` joins and prunes
them, and `sweep` ranks them and scores the images; `sampled` does so by the paper's protocol. `regions` splits scores
by the connected regions of masks, for AUPRO.
"""

__all__: list[str] = []
