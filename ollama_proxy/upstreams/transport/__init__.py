"""HTTP to upstreams: connections, pools, deadlines."""
