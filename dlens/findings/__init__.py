"""The questions that one asks of any model."""
