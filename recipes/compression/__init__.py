"""What docs/compression.md says of the trio: measured here, written as JSON, and drawn up as tables."""
