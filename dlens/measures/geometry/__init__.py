"""How the positions of a prompt lie to each other: in how many directions, and how the path through them bends."""
