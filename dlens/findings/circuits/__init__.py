"""Which parts of a model carry a behaviour: places, heads, neurons and the paths between them.

Every question compares a model's runs on a clean and a corrupted text, by a metric of its logits.
"""
