"""Counterpoise: the reproducible pipeline of balanced multimodal learning."""

__version__ = "0.1.0"
