"""The feature cache."""

CACHE_FILE = "cache.json"  # index of a finished cache, in its folder
