"""What lies on the disk of a store: where, in which form, under which name."""
