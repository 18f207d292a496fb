"""The seeded noise, and the processed distribution that tokens are drawn from."""
