"""What trains: data, networks, optimizers, the loop, and records of runs."""
