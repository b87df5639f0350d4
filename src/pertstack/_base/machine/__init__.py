"""What a machine has: memory, processes, locks, scratch room, a cluster, a terminal to report progress to."""
