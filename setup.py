"""What pyproject.toml cannot say: the folder ``recipes/`` goes into a wheel as ``alignment/shipped_recipes/``.

There it takes no top-level name of its own. ``rewards/config/shipped.py`` finds it in a checkout and in a wheel alike.
"""

from setuptools import find_packages, setup

RECIPES = "alignment.shipped_recipes"

setup(
    packages=[*find_packages(include=["alignment*", "data_builders*", "rewards*"]), RECIPES],
    package_dir={RECIPES: "recipes"},
    py_modules=["clinalign"],
)
