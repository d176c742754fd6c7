"""Fuzzing of everything that reads what strangers wrote.

A hundred inputs a test here; ``pytest tests/fuzz --hypothesis-profile=long`` tries many more. What was ever
found stands as an ``@example``.
"""

from hypothesis import HealthCheck, Phase, settings

EVERYTHING = {"suppress_health_check": list(HealthCheck), "phases": [Phase.explicit, Phase.generate]}

settings.register_profile("long", max_examples=1000, **EVERYTHING)
