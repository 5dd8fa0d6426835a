"""Talk to the container engine: resolve compose.yaml, start a container, follow it, remove it."""
