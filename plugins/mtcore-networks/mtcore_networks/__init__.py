"""Shared networks for spectrograms for mtcore."""
