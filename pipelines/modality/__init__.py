"""What differs between texts and images on their way through a job."""
