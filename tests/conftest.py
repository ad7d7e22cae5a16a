"""The same surroundings for every test, whoever runs it and wherever."""

import os

# Before torch is imported: pytest-xdist already uses every core.
os.environ["OMP_NUM_THREADS"] = "1"

# What a terminal, a CI service or a person's own settings would change in the output.
for name in ("FORCE_COLOR", "CLICOLOR_FORCE", "PY_COLORS", "GITHUB_ACTIONS"):
    os.environ.pop(name, None)
os.environ["NO_COLOR"] = "1"
os.environ["COLUMNS"] = "100"
os.environ["GIT_CONFIG_GLOBAL"] = os.devnull
os.environ["GIT_CONFIG_NOSYSTEM"] = "1"
