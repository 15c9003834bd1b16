"""Figures of answers, with intervals; of dialogues; over seeds."""
