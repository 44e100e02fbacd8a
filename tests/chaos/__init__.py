"""Two nodes that are killed at random moments while people work, and VISA fails: `make chaos`."""
