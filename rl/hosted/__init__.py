"""The hosted service on this machine: what its jobs mean here, and the server that is asked as the service is."""
