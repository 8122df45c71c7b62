"""Operating system and interpreter: CPUs, memory, files, imports."""
