"""One file per command: the step of a study that the command runs."""
