"""What a user subclasses, and the records a run keeps about it. Knows no loop."""
