"""One training loop a file: by hand, and by each package that is compared."""
