"""The wing that moves bytes."""
