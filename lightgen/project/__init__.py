"""The project on disk: its name, its root, its records, and writes to it."""
