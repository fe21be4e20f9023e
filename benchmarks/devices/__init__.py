"""What a step costs on several devices, and what is to be expected of more."""
