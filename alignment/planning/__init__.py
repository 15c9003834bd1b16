"""What is known before a run: faults, time, memory, the launch."""
