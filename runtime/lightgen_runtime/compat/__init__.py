"""Help with moving code from Lightning to the runtime.

python -m lightgen_runtime.compat run SCRIPT [ARGUMENT ...]
python -m lightgen_runtime.compat check PATH
"""
