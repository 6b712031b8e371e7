"""Sweeps: many variants of models on the same problems, prompts or texts, by many workers; `sweep.py` is the whole of it."""
