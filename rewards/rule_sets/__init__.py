"""The shipped rule sets, one YAML file each."""
