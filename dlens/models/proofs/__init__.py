"""Proofs, when a model loads, that it is what its family, layout and config say; none of them leaves a mark on it.

`load` calls `verify`, which calls the others; nothing else in the house needs them but for the widths of inner points.
"""
