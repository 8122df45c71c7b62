"""What tests share: real servers, real images, models."""
