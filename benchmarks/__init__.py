"""What dlens costs, as ratios to the same work without it."""
