"""What the three services share: settings, logs, JSON answers, the database pool, the client for upstreams."""
