"""What differs between kinds of model, as data: one file an architecture, and the table of all.

`load` and the verification ask the table; an architecture's name stands nowhere else.
"""
