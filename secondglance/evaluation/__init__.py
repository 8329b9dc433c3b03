"""Measuring what the second pass gains: judgments, measures, statistics, fits and reports."""
