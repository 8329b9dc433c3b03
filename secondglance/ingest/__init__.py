"""From paths to records: scan, decode, embed, and the catalog of what was seen."""
