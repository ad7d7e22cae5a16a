"""Handwritten digits: the data, the network and how it is trained."""
