"""Nucleus, the rendezvous server: signalling only, never data."""
