"""Trained models, applied to pictures."""
