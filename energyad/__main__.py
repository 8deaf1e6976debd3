"""`python -m energyad` is the program `energyad`."""

from __future__ import annotations

from energyad.cli import main

if __name__ == "__main__":
    main()
