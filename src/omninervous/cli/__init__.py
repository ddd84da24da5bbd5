"""The commands: `omni-daemon` (runs an edge or a Nucleus) and `omni` (looks at them)."""
