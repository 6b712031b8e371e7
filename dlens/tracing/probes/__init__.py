"""Small runs of dlens's own: FLOPs, the outlier channel and means, and the proof of a model's readout.

They go through the engine like a user's run; runs and findings ask them.
"""
