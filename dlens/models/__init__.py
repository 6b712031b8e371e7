"""What a model is: loading, proof that it is read right, nnsight's wrapper, and the three shipped models.

Everything above asks `Model` and its `Family`; a model's name is tested in here alone.
"""
