"""What a label is in a list of samples, before a task makes a target of it."""

Label = str | float | tuple[str, ...]  # of a sample: its class, its value, or the classes that its list names
