"""Coarse recall: vector stores and filters."""
