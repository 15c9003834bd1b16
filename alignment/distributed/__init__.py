"""Processes of a launch: the engine, decisions of all ranks, signs of life, disks that they share."""
