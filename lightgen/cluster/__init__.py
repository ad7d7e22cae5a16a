"""Job files for a project: what starts it on a cluster, from options."""
