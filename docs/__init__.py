"""The written pages, and in ``writers`` what makes the others. Not part of the package that is installed."""
