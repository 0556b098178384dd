"""Trained models at work: exported, and used without PyTorch."""
