"""Where metrics go."""

from lightgen_runtime.loggers.csv_logs import CSVLogger
from lightgen_runtime.loggers.logger import Logger

__all__ = ["CSVLogger", "Logger"]
