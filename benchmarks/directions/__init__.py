"""What kinds of directions cost, and what they buy."""
