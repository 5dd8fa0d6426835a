"""Write all that a machine without a network needs, and install it there."""
