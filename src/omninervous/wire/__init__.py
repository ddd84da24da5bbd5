"""Bytes on the wire <-> frozen dataclasses. Pure: no I/O, no clock, no randomness."""
