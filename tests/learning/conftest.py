"""Learning checks take thousands of steps, and are made without the checks of array types."""

from collections.abc import Iterator

import jaxtyping
import pytest


@pytest.fixture(autouse=True)
def unchecked_types(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Most of the time would go into them; the unit tests of the same functions have them on."""
    # Functions that are made inside of others would be compiled with their checks at every call.
    monkeypatch.setattr(jaxtyping, "jaxtyped", lambda **_: lambda function: function)
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", before)
