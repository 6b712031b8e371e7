"""Figures, pages and terminal output; figures are returned, never shown."""
