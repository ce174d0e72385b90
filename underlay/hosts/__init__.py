"""Where hosts come from: one interface (``base``), and namespaces behind it (``namespaces``)."""
