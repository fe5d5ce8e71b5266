"""Training paradigms for mtcore: tasks in turn, stages, gradient reversal, estimators of scikit-learn."""
