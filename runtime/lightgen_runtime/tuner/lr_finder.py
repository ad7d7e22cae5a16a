"""What `Tuner.lr_find` returns, under the path that Lightning users import from."""

from lightgen_runtime.callbacks.lr_finder import _LRFinder

__all__ = ["_LRFinder"]
