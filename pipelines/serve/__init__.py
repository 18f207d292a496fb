"""`paceline serve`: an HTTP server with the interface of OpenAI's, on Ray Serve."""
