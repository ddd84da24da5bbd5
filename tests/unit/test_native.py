"""The native module is built, loads and answers."""

from __future__ import annotations

from omninervous import _native


def test_hardware_aes_answers() -> None:
    assert _native.hardware_aes() in {True, False}


def test_steering_is_possible_or_the_kernel_says_why_not() -> None:
    error = _native.steering_error()
    assert error is None or "os error" in error
