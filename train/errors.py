"""The user error of this package, and the core of MXNet's messages; it imports nothing."""


class RunError(ValueError):
    """A run folder, a model or a machine that cannot be used."""


def reason(error: Exception) -> str:
    """Return the line of MXNet's message that names the error."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return next((line for line in lines if "Error:" in line), lines[0] if lines else "no reason")
