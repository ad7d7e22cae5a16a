"""Optimizers and schedules: what torch has, what a user asks for, and the code for it."""
