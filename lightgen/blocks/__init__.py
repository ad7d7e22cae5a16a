"""What can be regenerated in a project, block by block."""
