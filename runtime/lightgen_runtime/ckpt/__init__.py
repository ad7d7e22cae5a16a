"""Looking at checkpoint files, and turning them into others, without running anything.

`python -m lightgen_runtime.ckpt inspect|verify|diff|convert PATH`, which is what
`lightgen ckpt` becomes.
"""
