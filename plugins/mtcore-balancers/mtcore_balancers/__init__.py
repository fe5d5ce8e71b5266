"""Loss and gradient balancing for mtcore."""
