"""Shared networks for mtcore."""
