"""Real processes: signals, descriptors, memory, disks."""
