"""What leaves a study: a bundle, words for a paper, cells."""
