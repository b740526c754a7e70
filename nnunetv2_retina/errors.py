"""The one exception type for what a user can put right. The command line prints its text without a traceback."""


class RetinaError(ValueError):
    """Wrong input or a wrong setting. The text says what was got, what was expected and what to do."""
