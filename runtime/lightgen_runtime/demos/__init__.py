"""The smallest models there are, for documentation and tests."""
