"""Training speed on this machine: the net alone, a whole run, and other implementations."""
