"""Ganglion, the control plane: the edge daemon of one machine."""
