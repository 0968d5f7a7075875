"""Measure a finished run: metrics, calibration, robustness, latency, predictions and exports."""
