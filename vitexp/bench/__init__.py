"""Training speed of this machine: of the net alone, of a whole run, and of other implementations."""
