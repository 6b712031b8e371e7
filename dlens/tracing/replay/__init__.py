"""Steps that a GPU plays again from a recording: how they are recorded, and when they are played."""
