"""What is wrong with a recipe, said before anything is loaded."""
