"""Training in several processes, on one machine or many, over MXNet's parameter server."""
