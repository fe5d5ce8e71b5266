"""mtcore plugin `ravdess`: readers for RAVDESS, emotional speech and song."""
