"""From published weights or a training checkpoint to an exported model."""
