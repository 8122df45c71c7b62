"""Ways of saving one ResNet-18, compared: size, speed, safety and damage; `docs/serialization.md` shows the results."""
