"""One file per combiner, and what several of them share."""
