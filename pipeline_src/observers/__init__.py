"""What can be read of a run between two epochs without changing it, one observer per file; see `base`."""
