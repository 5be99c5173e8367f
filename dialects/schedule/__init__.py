"""The schedule dialect: the attributes a scheduler sets and a lowering reads."""
