"""Sweeps: many variants of models, asked the same by many workers.

`sweep.py` is who asks, `variant.py` what is tried, `asks.py` what it is asked, `table.py` what came out.
"""
