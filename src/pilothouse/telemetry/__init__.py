"""What happened, told to people and machines: typed events, and the logs and metrics that are made of them."""
