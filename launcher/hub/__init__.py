"""Start, stop and set up the hub of a class; what runs inside its container is in hub/."""
