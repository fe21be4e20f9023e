"""What a step costs beside the evaluation of its candidates."""
