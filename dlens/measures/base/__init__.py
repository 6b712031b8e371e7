"""What measures are made of: the interface, sums by noise and state, inner products, labelled arrays.

Measures import from here; `tracing` feeds them through `measure.py`.
"""
