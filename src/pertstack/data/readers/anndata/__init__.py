"""AnnData files: their tables, their layers, and the data they hold."""
