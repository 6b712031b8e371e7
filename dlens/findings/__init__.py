"""The questions that one asks of any model, each a function that takes a model, a trace or a name.

From the ground up: `scores`, `layers`, `skipping`, `effects`, `circuits`, `study`; a room calls those before it.
"""
