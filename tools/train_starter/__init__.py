"""Training of the starter models on generated scenes."""
