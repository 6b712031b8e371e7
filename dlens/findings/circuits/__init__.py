"""Which heads, neurons and paths do the work: attribution, circuits, and what heads attend to over the steps of a run.

Scores of places and edges are numbers of one metric; figures and users read them.
"""
