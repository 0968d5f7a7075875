"""The metrics of a classification and their names."""

from __future__ import annotations

# What result.json tells of the test and of validation, in this order.
METRICS = ("accuracy", "accuracy_top5", "precision_macro", "recall_macro", "f1_macro", "f1_weighted", "ece", "loss")
