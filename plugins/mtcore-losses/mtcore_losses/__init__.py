"""Losses for mtcore: imbalance, wrong labels, angular margins, robust and concordant regression."""
