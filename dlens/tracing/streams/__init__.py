"""Activations on disk: the rows of a stream, its shards and its index, and how they are read without the model.

`tracing/step/gather.py` makes the rows while a run goes on; `tracing/stream.py` goes through the prompts.
"""
