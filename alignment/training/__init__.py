"""The methods, and a run of one."""
