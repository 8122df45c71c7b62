"""What tests share: real servers, real pictures, models."""
