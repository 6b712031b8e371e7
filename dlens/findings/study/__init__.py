"""Everything that two papers ask, measured of several models, decided claim by claim.

The report shows it; finished parts are kept on disk.
"""
