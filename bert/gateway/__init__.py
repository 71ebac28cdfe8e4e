"""The gateway: HTTP and a page for everyone, in front of a Triton server that only it can reach."""
