"""How often the gate is wrong: by simulation, and on planted adapters."""
