"""What a change of the model does: accuracy kept, text repeated, representations moved, channels depended on.

Every question compares a model with itself, on the same texts and problems.
"""
