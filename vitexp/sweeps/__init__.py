"""Sweeps: a grid of trials, an engine that runs them, and the table of their results. Imports no torch."""
