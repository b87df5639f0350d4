"""Development rows of a study and what its steps learned from them."""
