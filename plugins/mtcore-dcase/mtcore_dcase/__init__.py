"""mtcore plugin `dcase`: readers for datasets of the DCASE challenges."""
