"""One published benchmark a file: its prompt, where an answer ends, and when it is right."""
