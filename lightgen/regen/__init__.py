"""Changing one block of a user's file: find it, merge it, splice it, prove it."""
