"""What layers hold and how to push it: rows of activations, features over steps, probes, directions, schedules."""
