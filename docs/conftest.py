"""What of this folder is no test module: the hooks import mkdocs, which is there only after ``make docs``."""

collect_ignore = ["writers/hooks.py"]
