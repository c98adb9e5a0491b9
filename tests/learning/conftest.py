"""Learning checks take thousands of steps, and are made without the checks of array types."""

from collections.abc import Iterator

import jaxtyping
import pytest


@pytest.fixture(autouse=True)
def unchecked_types() -> Iterator[None]:
    """Half of the time would go into them; the unit tests of the same functions have them on."""
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", before)
