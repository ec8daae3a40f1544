"""Watchkeeper: serves a language model, logs every prompt, and keeps watch over the answers."""

__version__ = "0.1.0"
