"""What can be wrong with a modality's samples, in training and in testing, one corruption per file; see `base`."""
