"""Read annotations of other programs, one module per format: images with their regions."""
