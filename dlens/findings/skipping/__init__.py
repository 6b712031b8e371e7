"""Which blocks to skip: published rules, greedy removal by loss, and schedules over the noise level.

A plan goes straight into `Trace.skip`; `effects` says what it costs.
"""
