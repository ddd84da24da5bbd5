"""The protocol machines, sans-IO: time and randomness are arguments, outputs are frozen objects."""
