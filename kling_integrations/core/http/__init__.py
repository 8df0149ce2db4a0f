"""The two clients, and what carries their bytes: ``requests`` and ``aiohttp``."""
