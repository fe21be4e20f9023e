"""What a user can put right, said in one sentence."""


class UserError(Exception):
    """Ends a command with its message alone: no traceback, exit status 1."""
