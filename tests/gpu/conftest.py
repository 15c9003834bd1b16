"""The check's own modules are no test modules: they are run as one script."""

collect_ignore_glob = ["verify*.py"]
