"""What is true and what is it worth: rule sets, facts, reading, one reward a file. Loads no torch."""
