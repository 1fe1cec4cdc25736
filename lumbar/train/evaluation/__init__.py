"""Predictions against labels: the metric, baselines, intervals, calibration, submissions."""
