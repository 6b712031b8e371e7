"""Sparse autoencoders: what one is, the files that they come in, how one is trained.

What is done with them on a model is in `ops/splice.py`, `measures/features.py` and `findings/features`.
"""
