"""Fewer bits and weights: a compressed copy of a model, how much of each layer goes, and the spectra of its weights."""
