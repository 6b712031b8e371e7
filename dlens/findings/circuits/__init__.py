"""Which places and paths of a model decide between two answers.

Scores of places and of the edges between them, found with gradients or by patching one run with another.
"""
