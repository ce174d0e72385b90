"""Where hosts come from: one interface (``base``), one finder, and a folder for each kind of host behind them."""
