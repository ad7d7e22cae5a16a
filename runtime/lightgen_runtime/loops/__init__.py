"""The story of each stage, told in straight lines: fit, evaluate, predict."""
