"""Side information: features of perturbations, targets, graphs, structures, gene names."""
