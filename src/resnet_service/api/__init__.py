"""The HTTP skin; FastAPI is known nowhere else."""
