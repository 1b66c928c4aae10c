"""Training: a frozen recipe, an objective, a loop that survives being killed."""
