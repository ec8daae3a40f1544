"""Evaluation jobs: scorers, windows, verdicts."""
