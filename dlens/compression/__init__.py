"""Models made smaller, and what their weights say of how far that goes: spectra, and how much of each matrix goes."""
