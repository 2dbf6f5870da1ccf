"""The gateway's edges: HTTP in, the gateway's own words out."""
