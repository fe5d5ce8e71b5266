"""Samplers for mtcore: shares of datasets and labels, batches of similar lengths."""
