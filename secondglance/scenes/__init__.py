"""Generated scenes: objects over a procedural backdrop, drawn and described."""
