"""What a label is, to training, evaluation and methods alike."""
