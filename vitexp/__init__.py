"""Experiment framework for Vision Transformers trained from scratch on small images."""
