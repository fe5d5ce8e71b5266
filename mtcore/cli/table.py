"""Where the tables of the command line come from."""

from ..reporting.table import format_table

__all__ = ["format_table"]
