"""What each layer does: profiles of one model, comparisons of several, linear probes.

Skip plans are made from profiles; users and figures read them.
"""
