"""What all networks share: settings, inputs, batches, layers, the training loop."""
