"""The one pass over all predictions, and the sums it leaves."""
