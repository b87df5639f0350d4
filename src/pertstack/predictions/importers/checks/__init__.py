"""What predictions must pass at the door: scale, card, order of rows and genes, not the truth itself."""
