"""The stages put together: indexing, searching, and the wiring of settings into parts."""
