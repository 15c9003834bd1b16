"""A model by its name: loaded, prepared, its kernels, its files."""
