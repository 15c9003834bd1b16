"""``python -m alignment`` is the ``clinalign`` command: what torchrun starts on each process."""

from clinalign import main

if __name__ == "__main__":
    main()
