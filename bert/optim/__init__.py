"""Optimizers, learning-rate schedules, and how flags choose them."""
