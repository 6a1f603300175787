import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # tiny networks only lose by a second thread

import train.runtime  # noqa: F401  before a test loads MXNet
