"""Sweeps: a grid of trials, an engine that runs them, and the table that they end in. Imports no torch."""
