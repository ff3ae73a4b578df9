"""How fast a model trains and generates, and where the time goes."""
