"""One weight per model for all genes and samples."""
