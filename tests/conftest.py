import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # a second thread only slows tiny networks

import train.runtime  # noqa: F401  has to come before a test loads MXNet
