"""What can be done to a forward: plain picklable data, one operation a file over `base/op.py`.

A trace holds them, `tracing` asks them where and when they act; they know no model and no run.
"""
