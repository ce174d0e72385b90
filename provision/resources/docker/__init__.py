"""Docker and what it keeps, as resources. Ours is what carries the label of the phase."""
