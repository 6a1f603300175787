"""From a run folder and an image to classes: backends, averaging over scales, the dense CRF."""
