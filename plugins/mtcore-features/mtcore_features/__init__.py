"""Signal steps, spectral features and feature steps for mtcore."""
