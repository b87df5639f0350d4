"""What the columns of a sample table and the names of genes mean, in one spelling."""
