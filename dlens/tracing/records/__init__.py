"""What a run leaves: the record, its files, its text, and what another run may patch from it.

Runs write it, everything above reads it; a record needs no model.
"""
