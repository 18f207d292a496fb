"""`paceline check`: manifests for Kubernetes, validated without a cluster."""
