"""A chain of operations, and how it runs: the trace, a run of each kind, the engine and what they leave.

`findings` and everything above call `chain.py` and read records; the rooms below serve the run from
`planning` (before it) over `step` (while it goes), `replay` (again) and `probes` (small runs of dlens's own) to
`records` (after it).
"""
