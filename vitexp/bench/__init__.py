"""python -m vitexp bench: images per second of the net, of what stands around it, and of others."""
