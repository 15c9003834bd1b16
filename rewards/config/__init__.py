"""Files of users, read strictly: YAML, JSON lines, CSV, overrides, knobs; every fault names its place."""
