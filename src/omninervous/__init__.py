"""OmniNervous: an encrypted, identity-driven Layer 2 fabric for AI clusters and real-time robots."""

__version__ = "0.1.0"
