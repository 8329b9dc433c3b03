"""The HTTP interface: search, reranking, indexing and media of a library, and a page for people."""
