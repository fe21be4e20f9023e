"""What faults in losses, processes and files cost."""
