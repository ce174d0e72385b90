"""What it costs to build the lab's network, measured side by side with other ways to build the same."""
