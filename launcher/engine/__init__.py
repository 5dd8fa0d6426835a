"""Talk to the container engine: resolve compose.yaml, start a container, follow it, remove it.

`client.connect` finds the engine. `compose` resolves a service and translates it into a
`container_spec.ContainerSpec`, which `container.run` runs. `known_errors` turns what an engine
prints into a card, and `orphans` removes what a killed launcher left.
"""
