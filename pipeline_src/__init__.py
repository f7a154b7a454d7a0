"""Counterpoise: the reproducible pipeline of balanced multimodal learning."""

__version__ = "0.2.0"
