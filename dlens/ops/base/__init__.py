"""What operations are made of: what they say of themselves, where and when they act, and how users write it.

Operations import from here; `tracing` asks `op.py` and `edit.py`, and checks against `target.py`.
"""
