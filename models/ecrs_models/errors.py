"""The error of the offline pipeline.

This module imports nothing, so that commands can catch the error where the pipeline's dependencies are not
installed.
"""


class DataError(Exception):
    """Input data or a working directory cannot be used. The text names the file, the place and the reason."""
