"""The operating system: CPUs, memory, files, imports."""
