"""Metrics for mtcore: rankings and detection errors, agreement and correlation, calibration."""
