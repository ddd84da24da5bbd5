"""Synapse, the data plane: the port every engine fulfils, and the engines."""
