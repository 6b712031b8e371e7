"""What is decided before a run computes: prompts read, the chain fitted to steps and positions, the cache chosen.

The runs call it; it knows neither a step's state nor the engine.
"""
