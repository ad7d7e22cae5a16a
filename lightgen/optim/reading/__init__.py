"""From a hand-written `configure_optimizers` to a specification, by its syntax alone."""
