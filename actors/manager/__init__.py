"""The manager of a pool that serves: between the ingresses and the pool."""
