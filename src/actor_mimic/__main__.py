"""``python -m actor_mimic`` is ``actor-mimic``."""

from actor_mimic.cli import main

if __name__ == "__main__":
    main()
