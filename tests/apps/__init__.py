"""The application matrix: unmodified programs over two paths, as client, as server and as both."""
