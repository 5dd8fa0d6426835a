"""The measurements of `invoke accept`: matrix products, memory, copies and all-reduce."""
