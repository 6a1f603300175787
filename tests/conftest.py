import train.runtime  # noqa: F401  MXNet's threads and libraries are set before a test loads it
