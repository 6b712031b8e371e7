"""Where a model keeps its parts, found from one small forward: by what its modules compute, never by their names.

`find_layout` calls the others: `calls.py` watches the forward, `chain.py` finds blocks and what stands before and
after them, `halves.py` what a block adds to the stream, `inside.py` what lies within its halves, `roles.py` which
projection is which. `matrices.py` reads the weights of linear modules for all who look at a block's.
"""
