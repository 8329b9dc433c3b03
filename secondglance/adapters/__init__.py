"""Rerankers and libraries inside other frameworks: LangChain, LlamaIndex, Haystack."""
