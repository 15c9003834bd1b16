"""Language models asked over an interface: messages, endpoints, the cache of replies, the budget."""
