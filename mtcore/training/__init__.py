"""Training: the model, the loop, evaluation. What trainers of other plugins import."""
