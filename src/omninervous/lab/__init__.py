"""The laboratory: machines, NATs and bad links made of network namespaces; autotest and benchmarks."""
