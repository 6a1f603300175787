"""Training in several processes, on one machine or many, over MXNet's parameter server."""

STEPS_FD = "LAUNCH_STEPS_FD"  # variable that names the descriptor on which iterations are counted
