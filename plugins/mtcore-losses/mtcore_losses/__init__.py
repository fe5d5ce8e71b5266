"""Losses for mtcore: imbalance, wrong labels, angular margins, contrast, teachers, robust and concordant regression."""
