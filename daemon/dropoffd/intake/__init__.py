"""How jobs come in: the Unix listener, its handlers, and the inbox."""
