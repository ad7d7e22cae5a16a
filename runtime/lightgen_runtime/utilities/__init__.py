"""Support code that knows nothing of training: errors, ranks, seeds, moving data."""
