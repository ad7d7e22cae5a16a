"""The command line: writes training projects and starts them.

Imports neither torch nor `lightgen_runtime`; a generated project never imports this
package.
"""

__version__ = "0.1.0"
