"""Figures, the report and terminal output: what people see.

Numbers come from `findings` and records; nothing is computed of a model here.
"""
