"""The lookahead optimizer as a trainer for mtcore."""
