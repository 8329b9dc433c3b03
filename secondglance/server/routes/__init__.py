"""One file for each part of the HTTP interface."""
