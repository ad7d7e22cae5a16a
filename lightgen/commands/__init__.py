"""One file a verb: parse flags, call a service, print."""
