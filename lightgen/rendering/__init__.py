"""From a template to a tree of files in memory, rendered by copier."""
